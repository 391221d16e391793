"""GIF: its blocks, which say how large the first frame is, and how many there are."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGE, EXTENSION, TRAILER = 0x2C, 0x21, 0x3B


def gif_size(data: bytes) -> tuple[int, int]:
    """Return the width and height in pixels that a decoder allocates: the screen, widened to the first frame."""
    width, height = struct.unpack_from("<HH", data, 6)
    for position in _images(data):
        left, top, frame_width, frame_height = struct.unpack_from("<HHHH", data, position + 1)
        return max(width, left + frame_width), max(height, top + frame_height)
    return width, height


def count_gif_frames(data: bytes) -> int:
    """Count a GIF's frames by its blocks, without decoding; 1 where it is too damaged to say."""
    return max(sum(1 for _ in _images(data)), 1)


def _images(data: bytes) -> Iterator[int]:
    """Yield where each image block begins; what is no block is skipped, as Pillow does."""
    position = 13 + _color_table_size(data[10:11])
    while position < len(data):
        introducer = data[position]
        if introducer == IMAGE:
            yield position
            position += 11 + _color_table_size(data[position + 9 : position + 10])
        elif introducer == EXTENSION:
            position += 2
        elif introducer == TRAILER:
            return
        else:
            position += 1
            continue
        while position < len(data) and data[position]:
            position += 1 + data[position]
        position += 1


def _color_table_size(flags: bytes) -> int:
    return 3 << ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0
