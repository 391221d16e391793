"""WebP: its size, and whether its end is there."""

from __future__ import annotations

import struct

ZERO_TAIL = bytes(256)
"""No lossless picture ends like this; an interrupted copy to a file of the right length does. A lossy picture may."""


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height in pixels of the canvas, or of the picture where there is none."""
    chunk = data[12:16]
    if chunk == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def is_cut_webp(data: bytes) -> bool:
    """Tell whether the file is shorter than it says."""
    return _length(data) > len(data)


def webp_ends_in_zeros(data: bytes) -> bool:
    """Tell whether a lossless picture has lost its end."""
    return data[12:16] == b"VP8L" and data.endswith(ZERO_TAIL, 0, _length(data))


def _length(data: bytes) -> int:
    return int.from_bytes(data[4:8], "little") + 8
