"""One case tried in this process: what came of it, what it cost, and whether that may be."""

from __future__ import annotations

import math
import os
import re
import signal
import time
import traceback
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from tasks.errors import MAX_MESSAGE_LENGTH, ErrorCode, ImageError
from tasks.imaging import SourceFacts, Transformed, probe, transform
from tasks.imaging.limits import memory_bound
from tests.fuzz.build import PNG_SIGNATURE
from tests.fuzz.cases import MAX_PIXELS, RECIPES, Case

CPU_SECONDS = 20
"""A case that takes longer is killed, and so found out."""

INT32 = 1 << 31
CODES = {code for code in ErrorCode if code.stage in {"decode", "encode"}} - {
    ErrorCode.DECODE_CRASH,
    ErrorCode.DECODE_TIMEOUT,
    ErrorCode.DECODE_MEMORY,
}
"""What may be said of a file; within the memory that is stated, none may fail for want of it."""


@dataclass(frozen=True)
class Outcome:
    """What came of a case.

    Args:
        number: which of its kind the case is.
        name: the case's.
        format: what the file was bred from.
        size: bytes of the file.
        code: an error code, or `ok`, with warnings.
        problem: what must not be, if anything.
        seconds: processor time.
        peak: bytes of memory above what the process held before.
    """

    number: int
    name: str
    format: str
    size: int
    code: str
    problem: str | None
    seconds: float
    peak: int


def slow(outcome: Outcome) -> str | None:
    """Say so if a case took longer than its pixels and bytes account for; on a busy machine that may be chance."""
    bound = 1 + 2e-6 * (MAX_PIXELS + outcome.size)
    return f"{outcome.seconds:.1f} s, where {bound:.1f} s were to be expected" if outcome.seconds > bound else None


def attempt(case: Case, number: int = 0) -> Outcome:
    """Transform a case's file and judge what comes of it."""
    before, sound = _memory("VmRSS"), _sound()
    _forget_peak()
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    started = time.process_time()
    code, problem = _judge(case)
    seconds = time.process_time() - started
    signal.setitimer(signal.ITIMER_PROF, 0)
    peak = _memory("VmHWM") - before
    if problem is None and peak > memory_bound(len(case.data), MAX_PIXELS):
        problem = f"{peak / 1e6:.0f} MB of memory"
    if problem is None and _sound() != sound:
        problem = "something was printed"
    return Outcome(number, case.name, case.format, len(case.data), code, problem, seconds, peak)


def _judge(case: Case) -> tuple[str, str | None]:
    try:
        result = transform(case.data, RECIPES[case.recipe], MAX_PIXELS)
    except ImageError as error:
        return error.code.value, _problem_of_error(error) or _problem_of_probe(case.data, None)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is what is looked for
        where = traceback.format_exception(error)[-3:]
        return "escaped", f"{type(error).__name__}: {''.join(where)}"[:1500]
    code = " ".join(("ok", *result.warnings))
    return code, _problem_of_result(result, case) or _problem_of_probe(case.data, result.facts)


def _problem_of_error(error: ImageError) -> str | None:
    if error.code not in CODES and error.code is not ErrorCode.SOURCE_EMPTY:
        return f"code {error.code}: {error.message}"
    if not 0 < len(error.message) <= MAX_MESSAGE_LENGTH or not error.message.isprintable():
        return f"message {error.message!r}"
    if re.search(r"(^|\s|')/\w+/|0x[0-9a-f]{6,}", error.message):
        return f"a path or an address in {error.message!r}"
    return _problem_of_facts(error.facts) if error.facts else None


def _problem_of_facts(facts: SourceFacts) -> str | None:
    good = 0 <= facts.width < INT32 and 0 <= facts.height < INT32
    good = good and 1 <= facts.orientation <= 8 and 1 <= facts.frames < INT32 and facts.mode.isprintable()
    return None if good else f"facts that no row can hold: {facts}"


def _problem_of_probe(data: bytes, facts: SourceFacts | None) -> str | None:
    try:
        probed = probe(data, MAX_PIXELS)
    except ImageError:
        return "probe refuses what transform takes" if facts else None
    except BaseException as error:  # noqa: BLE001 - as above
        return f"probe: {type(error).__name__}: {error}"
    return f"probe says {probed}, transform {facts}" if facts and probed != facts else _problem_of_facts(probed)


def _problem_of_result(result: Transformed, case: Case) -> str | None:
    pixels = cv2.imdecode(np.frombuffer(result.data, np.uint8), cv2.IMREAD_UNCHANGED)
    channels = 1 if pixels is not None and pixels.ndim == 2 else (0 if pixels is None else pixels.shape[2])
    if pixels is None or pixels.shape[:2] != (result.height, result.width) or channels != result.channels:
        return f"an output of {None if pixels is None else pixels.shape}, said to be {result.width} × {result.height}"
    numbers = (result.scale_x, result.scale_y, result.offset_x, result.offset_y)
    if not all(map(math.isfinite, numbers)) or min(numbers[:2]) <= 0:
        return f"a mapping of {numbers}"
    return _problem_of_facts(result.facts) or _silent_damage(result, case)


def _silent_damage(result: Transformed, case: Case) -> str | None:
    """Say whether pixels were lost without a word, as far as that can be known."""
    if case.original is None:
        return None
    checked = case.cut or (case.data.startswith(PNG_SIGNATURE) and case.original.startswith(PNG_SIGNATURE))
    if not checked or "truncated" in result.warnings or result.data == _undamaged(case.original, case.recipe):
        return None
    return "pixels were lost, and nothing said so"


@cache
def _undamaged(data: bytes, recipe: int) -> bytes | None:
    try:
        return transform(data, RECIPES[recipe], MAX_PIXELS).data
    except ImageError:
        return None


def _memory(field: str) -> int:
    """A figure of this process, in bytes."""
    with open("/proc/self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith(field + ":"))
    return int(line.split()[1]) << 10


def _forget_peak() -> None:
    with open("/proc/self/clear_refs", "w", encoding="ascii") as peak:
        peak.write("5")


def _sound() -> int:
    """How much was printed to what are files, in the processes that try cases."""
    return os.fstat(1).st_size + os.fstat(2).st_size
