"""EXIF orientation: finding it in whatever bytes claim to be EXIF, and applying it to pixels."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import cv2

if TYPE_CHECKING:
    from darkroom.tasks.imaging.facts import Pixels

ORIENTATION_TAG = 0x0112
PREFIX = b"Exif\x00\x00"


def read_orientation(exif: bytes) -> int | None:
    """Return the orientation (1..8) in an EXIF block; 1 where it has none, None where it is invalid."""
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
                return _valid(value if kind == 3 else struct.unpack_from(order + "I", tiff, entry + 8)[0])
    except struct.error:
        return None
    return 1


def _valid(value: int) -> int | None:
    return value if 1 <= value <= 8 else None


def apply_orientation(pixels: Pixels, orientation: int) -> Pixels:
    """Turn stored pixels, (height, width[, channels]), into the picture that a viewer shows."""
    match orientation:
        case 2:
            turned = cv2.flip(pixels, 1)
        case 3:
            turned = cv2.rotate(pixels, cv2.ROTATE_180)
        case 4:
            turned = cv2.flip(pixels, 0)
        case 5:
            turned = cv2.transpose(pixels)
        case 6:
            turned = cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE)
        case 7:
            turned = cv2.flip(cv2.transpose(pixels), -1)
        case 8:
            turned = cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE)
        case _:
            return pixels
    return turned  # type: ignore[return-value]
