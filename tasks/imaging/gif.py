"""GIF: its blocks, which say how large the first frame is, and how many there are."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from tasks.imaging.limits import MAX_FRAMES, MAX_PARTS

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGE, EXTENSION, TRAILER = 0x2C, 0x21, 0x3B
MAX_BLOCKS = 40 * MAX_PARTS
"""Blocks of up to 255 bytes that are looked at when frames are counted."""


def gif_size(data: bytes) -> tuple[int, int]:
    """Return the width and height in pixels that a decoder allocates: the screen, widened to the first frame."""
    width, height = struct.unpack_from("<HH", data, 6)
    for position in _images(data):
        left, top, frame_width, frame_height = struct.unpack_from("<HHHH", data, position + 1)
        return max(width, left + frame_width), max(height, top + frame_height)
    return width, height


def count_gif_frames(data: bytes) -> int:
    """Count a GIF's frames by its blocks, without decoding; 1 where it is too damaged to say."""
    frames = 0
    for _ in _images(data):
        frames += 1
        if frames == MAX_FRAMES:
            break
    return max(frames, 1)


def _images(data: bytes) -> Iterator[int]:
    """Yield where each image block begins; what is no block is skipped, as Pillow does."""
    position, left = 13 + _color_table_size(data[10:11]), MAX_BLOCKS
    while position < len(data) and left > 0:
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
            left -= 1
            continue
        while position < len(data) and data[position] and left > 0:
            position += 1 + data[position]
            left -= 1
        position += 1


def _color_table_size(flags: bytes) -> int:
    return 3 << ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0
