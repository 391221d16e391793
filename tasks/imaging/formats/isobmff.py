"""Boxes: the typed, length-prefixed parts of ISO base media files such as AVIF, HEIF and JPEG 2000."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from darkroom.tasks.imaging.formats.base import Part


def boxes(data: bytes) -> Iterator[Part]:
    """Yield the top-level boxes until a length is invalid or the file ends; the last may end beyond the file."""
    position = 0
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        start = position + 8
        if length == 1 and position + 16 <= len(data):
            (length,) = struct.unpack_from(">Q", data, start)
            start += 8
        end = position + length if length else len(data)  # 0: to the end of the file
        yield Part(kind, start, end)
        if end < start:
            return
        position = end


def brands(head: bytes) -> set[bytes]:
    """Return the brands (four-letter names of formats) that the `ftyp` box at a file's start lists; else none."""
    if head[4:8] != b"ftyp":
        return set()
    box = head[: min(int.from_bytes(head[:4], "big"), 256)]
    return {box[8:12], *(box[offset : offset + 4] for offset in range(16, len(box) - 3, 4))}
