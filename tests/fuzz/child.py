"""The process that tries cases: its memory is limited, its output is kept, and it may die of a case."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import IO

from tasks.imaging import configure_codecs
from tests.fuzz.cases import Case, fixed_cases, random_case
from tests.fuzz.runner import Work
from tests.fuzz.trial import attempt

ROOM = 1 << 30
"""Address space beyond what the process begins with, in bytes."""


def numbered_cases(work: Work) -> Iterator[tuple[int, Case]]:
    """Yield the cases of a piece of work, with their numbers."""
    if work.seed is None:
        yield from list(enumerate(fixed_cases(work.with_corpus)))[work.first : work.last : work.step]
        return
    for number in range(work.first, work.last, work.step):
        yield number, random_case(work.seed, number, work.with_corpus)


def main(work: Work, report: IO[str]) -> None:
    """Try each case, and say so before and after."""
    configure_codecs()
    with open("/proc/self/statm", encoding="ascii") as figures:
        size = int(figures.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, size + ROOM))
    for number, case in numbered_cases(work):
        begun = {"number": number, "name": case.name, "format": case.format, "size": len(case.data)}
        print(json.dumps(begun), file=report, flush=True)
        if number == work.die_at:
            os.kill(os.getpid(), signal.SIGSEGV)
        print(json.dumps({"outcome": asdict(attempt(case, number))}), file=report, flush=True)


if __name__ == "__main__":
    with open(int(sys.argv[1]), "w", encoding="utf-8") as pipe:
        main(Work(**json.loads(sys.argv[2])), pipe)
