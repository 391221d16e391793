"""`make fuzz`: try damaged files for a while, print their outcomes, and keep the files that show a problem.

python -m tests.fuzz [--seconds 300] [--seed N] [--case N] [--processes N]
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import time
from collections import Counter
from pathlib import Path

from tests.fuzz.bombs import bombs
from tests.fuzz.cases import Case, random_case
from tests.fuzz.runner import outcomes
from tests.fuzz.trial import Outcome, attempt

FOUND = Path(__file__).resolve().parents[2] / ".fuzz"
SHOWN = 5


class Tally:
    """Counts of outcomes, the slowest and the largest cases, and the problems."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.slowest: list[Outcome] = []
        self.largest: list[Outcome] = []
        self.found: list[Outcome] = []
        self.bombs: list[Outcome] = []

    def add(self, outcome: Outcome) -> None:
        code = "ok-with-warnings" if outcome.code.startswith("ok ") else outcome.code
        self.counts[code, outcome.format] += 1
        self.slowest = sorted([*self.slowest, outcome], key=lambda each: -each.seconds)[:SHOWN]
        self.largest = sorted([*self.largest, outcome], key=lambda each: -(each.peak or 0))[:SHOWN]
        if outcome.problem:
            self.found.append(outcome)
        if outcome.name.removesuffix(", recipe 0") in bombs():
            self.bombs.append(outcome)

    def table(self) -> str:
        """Return a table with a row for each outcome and a column for each format."""
        codes, formats = (sorted(set(names)) for names in zip(*self.counts, strict=True))
        lines = [f"{'':24}" + "".join(f"{image_format:>9}" for image_format in formats)]
        for code in codes:
            cells = (f"{self.counts[code, image_format] or '-':>9}" for image_format in formats)
            lines.append(f"{code:24}" + "".join(cells))
        return "\n".join(lines)


def main() -> int:
    """Run the fuzzer; return 1 if it found a problem."""
    parser = argparse.ArgumentParser(prog="make fuzz ARGS=")
    parser.add_argument("--seconds", type=float, default=300, help="how long to try cases (default: 300)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 31), help="of random cases (default: any)")
    parser.add_argument("--case", type=int, help="try only the case of this number, and keep its file")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="default: one per core")
    options = parser.parse_args()
    if options.case is not None:
        return _try_one(random_case(options.seed, options.case, with_corpus=True))
    started = time.monotonic()
    tally = Tally()
    print(f"seed {options.seed}, {options.seconds:.0f} s, {options.processes} processes", flush=True)
    until = started + options.seconds
    for seed in (None, options.seed):
        for case, outcome in outcomes(seed, options.processes, until=until, with_corpus=True):
            tally.add(outcome)
            if outcome.problem:
                print(f"FOUND {outcome.name}: {outcome.problem}\n      {_keep(case)}", flush=True)
    _report(tally, time.monotonic() - started)
    return 1 if tally.found else 0


def _keep(case: Case) -> Path:
    """Write the file of a case, and return its path."""
    FOUND.mkdir(exist_ok=True)
    path = FOUND / "".join(letter if letter.isalnum() else "-" for letter in case.name)[:150]
    path.write_bytes(case.data)
    return path


def _try_one(case: Case) -> int:
    FOUND.mkdir(exist_ok=True)
    path = FOUND / "case"
    path.write_bytes(case.data)
    outcome = attempt(case)
    print(
        f"{case.name}\n{path}, {len(case.data)} bytes\n{outcome.code}, {outcome.seconds:.2f} s, {_mega(outcome.peak)}"
    )
    print(outcome.problem or "no problem")
    return 1 if outcome.problem else 0


def _report(tally: Tally, seconds: float) -> None:
    print("\nbombs, with the processor time and the memory that each took (- if the case ended its process)")
    for outcome in tally.bombs:
        name = outcome.name.removesuffix(", recipe 0")
        print(f"  {outcome.seconds:6.2f} s {_mega(outcome.peak)}  {outcome.code:32} {name}")
    print(f"\n{tally.counts.total()} cases in {seconds:.0f} s\n\n{tally.table()}\n\nslowest")
    for outcome in tally.slowest:
        print(f"  {outcome.seconds:6.2f} s  {outcome.code}  {outcome.name}")
    print("largest")
    for outcome in tally.largest:
        print(f"  {_mega(outcome.peak)}  {outcome.code}  {outcome.name}")
    print(f"\nproblems found: {len(tally.found)}{f', kept in {FOUND}' if tally.found else ''}")


def _mega(size: int | None) -> str:
    return f"{'-':>8}" if size is None else f"{size / 1e6:5.0f} MB"


if __name__ == "__main__":
    sys.exit(main())
