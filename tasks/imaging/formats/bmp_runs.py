"""Decode the run lengths of a BMP, which set pixels and skip others."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from darkroom.tasks.errors import ImageError
from darkroom.tasks.imaging.bands import Pixels
from darkroom.tasks.imaging.failures import corrupt
from darkroom.tasks.imaging.records import Size

END_OF_ROW, END_OF_PICTURE, SKIP = 0, 1, 2


class Runs(NamedTuple):
    """A decoded picture; arrays are one-dimensional, with one element per pixel in stored order.

    Args:
        indices: indices into the palette; 0 for skipped pixels.
        written: whether each pixel was set.
        end: number of pixels that the file sets or skips; less than all if it is cut.
    """

    indices: Pixels
    written: npt.NDArray[np.bool_]
    end: int


def decode_runs(data: bytes, size: Size, *, half_bytes: bool) -> Runs:
    """Return the pixels of run-length encoded `data`; with `half_bytes`, palette indices have 4 bits.

    Raises `decode.corrupt` if a run extends beyond its row or the picture.
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


def _corrupt(excess: str) -> ImageError:
    return corrupt(f"the BMP's run lengths are damaged: they hold more {excess} than the picture")
