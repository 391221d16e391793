"""ICO: the pictures in an icon, and the one of them that is read."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import ceil, log
from typing import TYPE_CHECKING

from darkroom.tasks.imaging.png import SIGNATURE, png_size

if TYPE_CHECKING:
    from collections.abc import Iterator

OLD_HEADER = 12
"""Bytes of a bitmap header in which sizes have 16 bits."""

HEADERS = frozenset({OLD_HEADER, 40, 52, 56, 64, 108, 124})


@dataclass(frozen=True, slots=True)
class Entry:
    """What an icon's directory says of a picture: size in pixels, bits of colour, and where it starts."""

    width: int
    height: int
    depth: int
    start: int


def ico_size(data: bytes) -> tuple[int, int] | None:
    """Return the largest size in pixels that a picture's own header asks a decoder for."""
    sizes = [_size_at(data, entry.start) for entry in _entries(data)]
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def png_in_icon(data: bytes) -> int | None:
    """Return where the PNG starts that is read of an icon; None where that is no PNG."""
    # Pillow's choice: the largest by the directory, of those the one of the fewest bits.
    chosen = min(_entries(data), key=lambda entry: (-entry.width * entry.height, entry.depth), default=None)
    return chosen.start if chosen and data.startswith(SIGNATURE, chosen.start) else None


def _entries(data: bytes) -> Iterator[Entry]:
    (count,) = struct.unpack_from("<H", data, 4)
    for position in range(6, min(6 + 16 * count, len(data) - 15), 16):
        width, height, colors, _, _, bits, _, start = struct.unpack_from("<BBBBHHII", data, position)
        depth = bits or (colors != 0 and ceil(log(colors, 2))) or 256
        yield Entry(width or 256, height or 256, depth, start)


def _size_at(data: bytes, start: int) -> tuple[int, int]:
    try:
        if data.startswith(SIGNATURE, start):
            return png_size(data, start) or (0, 0)
        (header,) = struct.unpack_from("<I", data, start)
        if header not in HEADERS:
            return 0, 0  # nothing that is read
        width, height = struct.unpack_from("<HH" if header == OLD_HEADER else "<ii", data, start + 4)
    except struct.error:
        return 0, 0
    # Colours and mask lie one above the other.
    return abs(width), abs(height) // 2
