"""AVIF: how large its pictures are by the container, and whether its end is there."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ZERO_TAIL = bytes(256)
"""No picture ends like this; an interrupted copy to a file of the right length does."""

Box = tuple[bytes, int, int]
"""A box's kind, and where its contents start and end."""


def avif_size(data: bytes) -> tuple[int, int] | None:
    """Return the largest width and height in pixels that the container states."""
    return max(_stated_sizes(data), key=lambda size: size[0] * size[1], default=None)


def _stated_sizes(data: bytes) -> Iterator[tuple[int, int]]:
    # Every item has an `ispe` property; the picture is the largest (a grid, or the item itself).
    position = data.find(b"ispe")
    while position >= 0:
        if data[position - 4 : position] == b"\x00\x00\x00\x14" and position + 16 <= len(data):
            yield struct.unpack_from(">II", data, position + 8)
        position = data.find(b"ispe", position + 4)


def _boxes(data: bytes, position: int, end: int) -> Iterator[Box]:
    while position + 8 <= end:
        length, kind = struct.unpack_from(">I4s", data, position)
        head = 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, position + 8)
            head = 16
        stop = position + length if length else end
        yield kind, position + head, min(stop, end)
        if stop < position + head:
            return
        position = stop


def is_cut_avif(data: bytes) -> bool:
    """Tell whether the pictures' data is shorter than the file says, or not there at all."""
    for kind, start, _ in _boxes(data, 0, len(data)):
        if kind == b"mdat":
            (length,) = struct.unpack_from(">I", data, start - 8)
            # A length of 0 says that it goes on to the end, wherever that is.
            return bool(start - 8 + length > len(data))
    return True


def avif_ends_in_zeros(data: bytes) -> bool:
    """Tell whether pictures have lost their end."""
    return any(
        kind == b"mdat" and data.endswith(ZERO_TAIL, start, end) for kind, start, end in _boxes(data, 0, len(data))
    )
