"""Read the EXIF orientation, and apply it to pixels and rectangles."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import cv2

from darkroom.tasks.imaging.bands import Pixels
from darkroom.tasks.imaging.records import Rectangle, Size

ORIENTATION_TAG = 0x0112
PREFIX = b"Exif\x00\x00"


def read_orientation(exif: bytes) -> int | None:
    """Return the orientation (1..8) in an EXIF block; 1 if it has none, None if the block or the value is invalid."""
    tiff = exif.removeprefix(PREFIX)
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(tiff[:4])
    if order is None:
        return None
    try:
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, entry)
            if tag == ORIENTATION_TAG:
                if kind != 3:
                    (value,) = struct.unpack_from(order + "I", tiff, entry + 8)
                return value if 1 <= value <= 8 else None
    except struct.error:
        return None
    return 1


def apply_orientation(pixels: Pixels, orientation: int) -> Pixels:
    """Return pixels, (height, width[, channels]), turned or mirrored to be upright."""
    return _TURNS[orientation](pixels) if orientation in _TURNS else pixels


def stored_rectangle(rectangle: Rectangle, size: Size, orientation: int) -> Rectangle:
    """Return where a rectangle of an upright picture of this `size` is in the picture as stored."""
    left, top, width, height = rectangle
    right, bottom = size[0] - left - width, size[1] - top - height
    if orientation < 5:
        return right if orientation in {2, 3} else left, bottom if orientation in {3, 4} else top, width, height
    return bottom if orientation in {7, 8} else top, right if orientation in {6, 7} else left, height, width


_TURNS: dict[int, Callable[[Any], Any]] = {
    2: lambda pixels: cv2.flip(pixels, 1),
    3: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_180),
    4: lambda pixels: cv2.flip(pixels, 0),
    5: cv2.transpose,
    6: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE),
    7: lambda pixels: cv2.flip(cv2.transpose(pixels), -1),
    8: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE),
}
