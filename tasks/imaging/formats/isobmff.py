"""The boxes of an ISO base media file, of which AVIF, HEIF and JPEG 2000 are kinds."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from darkroom.tasks.imaging.formats.base import Part


def boxes(data: bytes) -> Iterator[Part]:
    """Yield the boxes at the top level of a file, as far as they can be followed; the last may end beyond the file."""
    position = 0
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        start = position + 8
        if length == 1 and position + 16 <= len(data):
            (length,) = struct.unpack_from(">Q", data, start)
            start += 8
        # A length of 0 means that the box extends to the end of the file.
        end = position + length if length else len(data)
        yield Part(kind, start, end)
        if end < start:
            return
        position = end


def brands(head: bytes) -> set[bytes]:
    """Return the brands that a file's first box says it conforms to; none for other kinds of files."""
    if head[4:8] != b"ftyp":
        return set()
    box = head[: min(int.from_bytes(head[:4], "big"), 256)]
    return {box[8:12], *(box[offset : offset + 4] for offset in range(16, len(box) - 3, 4))}
