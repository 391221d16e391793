"""Try one case in a codec process, and judge its outcome and its cost."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import psutil

from darkroom.tasks.errors import MAX_MESSAGE_LENGTH, ErrorCode, ImageError
from darkroom.tasks.imaging import SourceFacts, Transformed
from darkroom.tasks.imaging.formats.base import TOLERATED_DAMAGE
from darkroom.tasks.imaging.transform import transform
from darkroom.tasks.worker.codec import thread_codec
from darkroom.tasks.worker.codec_handle import start_server
from darkroom.tasks.worker.orders import Answer, Orders
from darkroom.tasks.worker.shared_batch import Operation
from tests.fuzz.build import PNG_SIGNATURE
from tests.fuzz.cases import MAX_PIXELS, RECIPES, Case

MAX_IMAGE_SECONDS = 5.0
INT32 = 1 << 31
DAMAGE = set(TOLERATED_DAMAGE.values())
CODES = {code for code in ErrorCode if code.stage in {"decode", "encode"}} | {ErrorCode.SOURCE_EMPTY}
"""The error codes that a damaged file may have."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a case.

    Args:
        number: the case's number among the random or the fixed cases.
        name: the case's name.
        format: the format of the sample that the file was made from.
        size: bytes of the file.
        code: an error code, or `ok` and the warnings.
        problem: what is wrong with the outcome, if anything.
        seconds: processor time; wall-clock time if the case ended the codec process.
        peak: bytes of memory above what the process held before; None if the case ended the process.
    """

    number: int
    name: str
    format: str
    size: int
    code: str
    problem: str | None
    seconds: float
    peak: int | None


def attempt(case: Case, number: int = 0) -> Outcome:
    """Transform a case's file, and judge the outcome and its cost."""
    orders = Orders(recipe=RECIPES[case.recipe], max_pixels=MAX_PIXELS, max_image_seconds=MAX_IMAGE_SECONDS)
    codec = thread_codec()
    list(codec.run(Operation.DESCRIBE, orders, [b""]))  # starts the process
    process = _codec_process()
    before, began, started = _memory(process, "VmRSS"), _seconds(process), time.monotonic()
    _reset_peak(process)
    [answer] = codec.run(Operation.TRANSFORM, orders, [case.data])
    code, problem = judge(answer, case)
    peak: int | None = None
    try:
        seconds, peak = _seconds(process) - began, _memory(process, "VmHWM") - before
    except (OSError, psutil.NoSuchProcess):
        seconds = time.monotonic() - started
    if problem is None and peak and peak > orders.memory_for(MAX_PIXELS, len(case.data)):
        problem = f"{peak / 1e6:.0f} MB of memory"
    return Outcome(number, case.name, case.format, len(case.data), code, problem, seconds, peak)


def judge(answer: Answer, case: Case) -> tuple[str, str | None]:
    """Return the code of an answer, and what is wrong with it, if anything."""
    if isinstance(answer, ImageError):
        return answer.code.value, _problem_of_error(answer)
    assert isinstance(answer, Transformed)
    return " ".join(("ok", *answer.warnings)), _problem_of_result(answer, case)


def _problem_of_error(error: ImageError) -> str | None:
    if error.code not in CODES or error.message.startswith("unexpected "):
        return f"code {error.code}: {error.message}"
    if not 0 < len(error.message) <= MAX_MESSAGE_LENGTH or not error.message.isprintable():
        return f"message {error.message!r}"
    if re.search(r"(^|\s|')/\w+/|0x[0-9a-f]{6,}", error.message):
        return f"a path or an address in {error.message!r}"
    return _problem_of_facts(error.facts) if error.facts else None


def _problem_of_facts(facts: SourceFacts) -> str | None:
    good = 0 <= facts.width < INT32 and 0 <= facts.height < INT32
    good = good and 1 <= facts.orientation <= 8 and 1 <= facts.frames < INT32 and facts.mode.isprintable()
    return None if good else f"facts that do not fit into a row: {facts}"


def _problem_of_result(result: Transformed, case: Case) -> str | None:
    pixels = cv2.imdecode(np.frombuffer(result.data, np.uint8), cv2.IMREAD_UNCHANGED)
    channels = 1 if pixels is not None and pixels.ndim == 2 else (0 if pixels is None else pixels.shape[2])
    if pixels is None or pixels.shape[:2] != (result.height, result.width) or channels != result.channels:
        return f"an output of {None if pixels is None else pixels.shape}, stated as {result.width} × {result.height}"
    numbers = (result.scale_x, result.scale_y, result.offset_x, result.offset_y)
    if not all(map(math.isfinite, numbers)) or min(numbers[:2]) <= 0:
        return f"a mapping of {numbers}"
    return _problem_of_facts(result.facts) or _silent_damage(result, case)


def _silent_damage(result: Transformed, case: Case) -> str | None:
    """Return a problem if pixels were lost without a warning; None if not, or if that cannot be known."""
    if case.original is None:
        return None
    checked = case.cut or (case.data.startswith(PNG_SIGNATURE) and case.original.startswith(PNG_SIGNATURE))
    if (
        not checked
        or not DAMAGE.isdisjoint(result.warnings)
        or bytes(result.data) == _undamaged(case.original, case.recipe)
    ):
        return None
    return "pixels were lost without a warning"


@cache
def _undamaged(data: bytes, recipe: int) -> bytes | None:
    try:
        return transform(data, RECIPES[recipe], MAX_PIXELS).data
    except ImageError:
        return None


_known: list[psutil.Process] = []


def _codec_process() -> psutil.Process:
    """Return the only codec process of this process."""
    if not _known or not _known[0].is_running():
        children = psutil.Process(start_server().pid).children()
        _known[:] = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
    return _known[0]


def _memory(process: psutil.Process, field: str) -> int:
    """Return a field of a process's status, in bytes."""
    lines = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(field + ":")).split()[1]) << 10


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _reset_peak(process: psutil.Process) -> None:
    Path(f"/proc/{process.pid}/clear_refs").write_text("5", encoding="ascii")
