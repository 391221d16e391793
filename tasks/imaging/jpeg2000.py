"""JPEG 2000: whether all of its tiles are there."""

from __future__ import annotations

import struct

START = b"\xff\x4f\xff\x51"
SOT, SOD, EOC = 0xFF90, 0xFF93, 0xFFD9
TILE_PART_HEADER = 12


def lacks_tiles(data: bytes) -> bool:
    """Tell whether a tile, or the end of one, is missing; decoders leave it black without a word."""
    start = _find_codestream(data)
    if not data.startswith(START, start):
        return True
    try:
        return _lacks_tiles(data, start)
    except (struct.error, ZeroDivisionError):  # the file ends within its headers
        return True


def _lacks_tiles(data: bytes, start: int) -> bool:
    right, bottom, _, _, tile_width, tile_height, left, top = struct.unpack_from(">8I", data, start + 8)
    tiles = -(-(right - left) // tile_width) * -(-(bottom - top) // tile_height)
    seen: set[int] = set()
    position = _end_of_header(data, start + 2)
    while data[position : position + 2] == SOT.to_bytes(2, "big") and position + TILE_PART_HEADER <= len(data):
        tile, length = struct.unpack_from(">HI", data, position + 4)
        seen.add(tile)
        # A length of 0 says that it goes on to the end, wherever that is.
        position = position + max(length, TILE_PART_HEADER) if length else len(data)
    return position > len(data) or len(seen) < tiles


def _end_of_header(data: bytes, position: int) -> int:
    """Return where the first marker is that is followed by data or by a tile."""
    while position + 4 <= len(data):
        marker, length = struct.unpack_from(">HH", data, position)
        if marker in {SOT, SOD, EOC} or length < 2:
            break
        position += 2 + length
    return position


def _find_codestream(data: bytes) -> int:
    """Return where the codestream starts, or the end of the file where there is none."""
    position = 0
    if data.startswith(START):
        return position
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"jp2c":
            return position + (16 if length == 1 else 8)
        if length == 1 and position + 16 <= len(data):
            (length,) = struct.unpack_from(">Q", data, position + 8)
        if length < 8:
            break
        position += length
    return len(data)
