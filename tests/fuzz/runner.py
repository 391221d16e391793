"""Try cases in several processes, each with a codec process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from itertools import count, takewhile
from multiprocessing import get_context

from tests.fuzz.cases import Case, fixed_cases, random_case
from tests.fuzz.trial import Outcome, attempt

CHUNK = 50


def outcomes(
    seed: int | None, processes: int, *, last: int = 1 << 60, until: float = float("inf"), with_corpus: bool = False
) -> Iterator[tuple[Case, Outcome]]:
    """Yield each case and its outcome, until a `time.monotonic` time: the seed's random cases, or all fixed cases."""
    if seed is None:
        last = len(_fixed(with_corpus))
    starts = takewhile(lambda start: start < last and time.monotonic() < until, count(0, CHUNK))
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        pending = [
            pool.submit(_tried, seed, start, last, with_corpus)
            for _, start in zip(range(processes), starts, strict=False)
        ]
        while pending:
            found = pending.pop(0).result()
            for start in starts:
                pending.append(pool.submit(_tried, seed, start, last, with_corpus))
                break
            for outcome in found:
                yield case_of(seed, outcome.number, with_corpus), outcome


def case_of(seed: int | None, number: int, with_corpus: bool = False) -> Case:
    """Return a case by its number."""
    return _fixed(with_corpus)[number] if seed is None else random_case(seed, number, with_corpus)


def _tried(seed: int | None, start: int, last: int, with_corpus: bool) -> list[Outcome]:
    numbers = range(start, min(start + CHUNK, last))
    return [attempt(case_of(seed, number, with_corpus), number) for number in numbers]


@cache
def _fixed(with_corpus: bool) -> list[Case]:
    return fixed_cases(with_corpus)
