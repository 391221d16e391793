"""Has cases tried in child processes, and goes on with the next one where a child dies of one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO

from tests.fuzz.trial import Outcome

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Work:
    """Which cases: every `step`th from `first` up to `last`, of the random ones of a seed, or the fixed ones.

    At case `die_at` the process dies, for the test of what happens then.
    """

    seed: int | None
    first: int = 0
    last: int = 1 << 60
    step: int = 1
    with_corpus: bool = False
    die_at: int | None = None


def outcomes(work: Work, until: float = float("inf")) -> Iterator[Outcome]:
    """Yield what comes of each case, also of one that kills its process; `until` is of `time.monotonic`."""
    while work.first < work.last and time.monotonic() < until:
        with _child(work) as (process, report):
            dying = None
            for line in report:
                message = json.loads(line)
                if "outcome" not in message:
                    dying = message
                    continue
                dying = None
                work = replace(work, first=message["outcome"]["number"] + work.step)
                yield Outcome(**message["outcome"])
                if time.monotonic() >= until:
                    return
            status = process.wait()
        if dying is None:
            if status:
                raise RuntimeError(f"a process that tries cases ended with {status}")
            return
        work = replace(work, first=dying["number"] + work.step)
        yield Outcome(**dying, code="died", problem=_how(status), seconds=0.0, peak=0)


@contextmanager
def _child(work: Work) -> Iterator[tuple[subprocess.Popen[bytes], IO[str]]]:
    end, start = os.pipe()
    command = [sys.executable, "-m", "tests.fuzz.child", str(start), json.dumps(asdict(work))]
    with tempfile.TemporaryFile() as sounds, open(end, encoding="utf-8") as report:
        process = subprocess.Popen(command, cwd=ROOT, stdout=sounds, stderr=sounds, pass_fds=(start,))
        os.close(start)
        try:
            yield process, report
        finally:
            process.kill()
            process.wait()


def _how(status: int) -> str:
    if status == -signal.SIGPROF:
        return "it took too long"
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
