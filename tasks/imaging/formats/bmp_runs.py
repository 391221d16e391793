"""The run lengths of a BMP: which pixels they set, and which they skip."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from darkroom.tasks.errors import ErrorCode, ImageError
from darkroom.tasks.imaging.bands import Pixels
from darkroom.tasks.imaging.records import Size

END_OF_ROW, END_OF_PICTURE, SKIP = 0, 1, 2


class Runs(NamedTuple):
    """A decoded picture, flat, in the order of the file.

    Args:
        indices: colour numbers; 0 for pixels that were skipped.
        written: which pixels were set.
        end: how many pixels the file describes, set or skipped: fewer than the picture's if it is cut.
    """

    indices: Pixels
    written: npt.NDArray[np.bool_]
    end: int


def decode_runs(data: bytes, size: Size, *, half_bytes: bool) -> Runs:
    """Return the pixels of run-length encoded `data`; with `half_bytes`, colour numbers have 4 bits.

    Raises `decode.corrupt` where runs lead out of a row or of the picture.
    """
    width, height = size
    total = width * height
    indices, written = np.zeros(total, np.uint8), np.zeros(total, bool)
    position, x, y = 0, 0, 0
    while position + 2 <= len(data):
        count, value = data[position], data[position + 1]
        position += 2
        if count == 0 and value == END_OF_PICTURE:
            return Runs(indices, written, total)
        if count == 0 and value == END_OF_ROW:
            x, y = 0, y + 1
            continue
        if count == 0 and value == SKIP:
            if position + 2 > len(data):
                break
            x, y = x + data[position], y + data[position + 1]
            position += 2
            _refuse_outside(x, y, size)
            continue
        length = count or value
        _refuse_outside(x + length, y, size)
        if y >= height:
            raise _corrupt("rows")
        start = y * width + x
        if count:
            _fill(indices[start : start + length], value, half_bytes=half_bytes)
        else:
            stored = (length + 1) // 2 if half_bytes else length
            literal = data[position : position + stored]
            if len(literal) < stored:
                break
            position += stored + stored % 2
            indices[start : start + length] = _literal(literal, half_bytes=half_bytes)[:length]
        written[start : start + length] = True
        x += length
    return Runs(indices, written, total if y >= height else min(y * width + x, total))


def _fill(pixels: Pixels, value: int, *, half_bytes: bool) -> None:
    if half_bytes:
        pixels[::2], pixels[1::2] = value >> 4, value & 15
    else:
        pixels[:] = value


def _literal(stored: bytes, *, half_bytes: bool) -> Pixels:
    values = np.frombuffer(stored, np.uint8)
    return np.stack((values >> 4, values & 15), axis=1).ravel() if half_bytes else values


def _refuse_outside(x: int, y: int, size: Size) -> None:
    if x > size[0]:
        raise _corrupt("pixels in a row")
    if y > size[1]:
        raise _corrupt("rows")


def _corrupt(what: str) -> ImageError:
    return ImageError(
        ErrorCode.DECODE_CORRUPT, f"the BMP's run lengths are damaged: they hold more {what} than the picture"
    )
