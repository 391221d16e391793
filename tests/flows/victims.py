"""What a run consists of, and how it is killed."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from uuid import uuid4

import psutil
from harness import clean_environment, eventually

VICTIMS = ("worker", "workers", "codec", "flow", "group", "server", "scheduler")

SURVIVED = {"worker", "workers", "codec", "server"}
"""Without these a run goes on: it gets others."""

OWN_SERVER = {"group", "server"}
"""These die of a run that starts its own server."""

MARK = "PYTHON_CHAOS_TRIAL"
"""An environment variable by which all processes of a trial's run are known, however they were started. Codec
processes get it for how it begins."""


@dataclass(frozen=True)
class Run:
    """A command that has been started."""

    process: subprocess.Popen[bytes]
    mark: str
    said: IO[bytes]

    def itself(self) -> list[psutil.Process]:
        """Return its first process, if it lives."""
        return [psutil.Process(self.process.pid)] if self.process.poll() is None else []

    def family(self) -> list[psutil.Process]:
        """Return its processes that live, whoever their parent is by now."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):  # it has just ended, or is another user's
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def workers(self) -> list[psutil.Process]:
        """Return its Dask workers: what its fork server has forked, and what looks like that."""
        forked = {each.pid: each for each in self.family() if is_command(each, "multiprocessing.forkserver")}
        found = []
        for process in forked.values():
            with suppress(psutil.NoSuchProcess):
                if process.ppid() in forked:
                    found.append(process)
        return found

    def ended(self, seconds: float) -> int | None:
        """Wait so long for its end, and return how it ended; None if it did not."""
        with suppress(subprocess.TimeoutExpired):
            return self.process.wait(seconds)
        return None

    def last_words(self) -> str:
        """Return the end of what it has printed."""
        self.said.seek(0)
        return self.said.read().decode(errors="replace").strip()[-300:]

    def survivors(self, seconds: float) -> list[psutil.Process]:
        """Return what of it still lives after so long."""
        deadline = time.monotonic() + seconds
        while (alive := self.family()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return alive


@contextmanager
def started(command: Sequence[str | Path], environment: dict[str, str]) -> Iterator[Run]:
    """Start a command in a session of its own; what is left of it in the end is killed."""
    mark = str(uuid4())
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            list(map(str, command)),
            env=environment | {MARK: mark},
            stdout=said,
            stderr=said,
            start_new_session=True,
            cwd=environment["HOME"],
        )
        run = Run(process, mark, said)
        try:
            yield run
        finally:
            kill([*run.itself(), *run.family()])
            process.wait()


def is_command(process: psutil.Process, word: str) -> bool:
    try:
        return any(word in argument for argument in process.cmdline())
    except psutil.Error:
        return False


def names(processes: list[psutil.Process]) -> str:
    """Say what processes these are."""
    said = []
    for process in processes:
        with suppress(psutil.Error):
            said.append(" ".join(process.cmdline())[:80])
    return ", ".join(said)


def kill(processes: list[psutil.Process]) -> int:
    """Kill what of these still lives, and return how many that were."""
    killed = 0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            killed += process.status() != psutil.STATUS_ZOMBIE
            process.kill()
    return killed


def strike(victim: str, run: Run, scheduler: Run | None, chance: random.Random) -> int:
    """Kill a victim of a run, if that still goes on, and return how many processes that were."""
    if not run.itself():
        return 0
    match victim:
        case "worker":
            workers = run.workers()
            struck = chance.sample(workers, min(1, len(workers)))
        case "workers":
            struck = run.workers()
        case "codec":  # a process, or what they are all forked from
            codecs = [process for process in run.family() if is_command(process, "darkroom.tasks.worker.codec_server")]
            struck = chance.sample(codecs, min(1, len(codecs)))
        case "server":
            struck = [process for process in run.family() if is_command(process, "darkroom.flows.runtime.local_server")]
        case "scheduler" if scheduler:
            struck = scheduler.itself()
        case "flow":
            struck = run.itself()
        case _:
            # The flow first: it would replace what is killed before it.
            struck = list(dict.fromkeys([*run.itself(), *run.family()]))
    return kill(struck)


@contextmanager
def dask_cluster(folder: Path, workers: int) -> Iterator[tuple[str, Run]]:
    """Run a Dask scheduler and workers as somebody else would, with Dask's defaults; provide its address and itself."""
    file = folder / "scheduler.json"
    file.unlink(missing_ok=True)
    common = ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(file)]
    commands = [["dask_scheduler", "--port", "0"], *[["dask_worker", "--nthreads", "1"]] * workers]
    with ExitStack() as stack:
        scheduler, *_ = [
            stack.enter_context(
                started(
                    [sys.executable, "-m", f"distributed.cli.{program}", *options, *common], clean_environment(folder)
                )
            )
            for program, *options in commands
        ]
        eventually(lambda: file.exists() and file.read_text().rstrip().endswith("}"))
        yield json.loads(file.read_text())["address"], scheduler
