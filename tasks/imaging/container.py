"""What containers say in their first bytes: sizes before a decoder sees them, frame counts, missing ends."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_FRAMES = 100_000
"""Counting stops here: more frames than this are reported as this many."""

MAX_PROFILE_TEXT = 1 << 20
RAW_PROFILES = (b"Raw profile type exif\x00", b"Raw profile type APP1\x00")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
Size = tuple[int, int]


def declared_size(image_format: str, data: bytes) -> Size | None:
    """Return the largest width and height in pixels that a header asks a decoder for, where it is known.

    Covers the formats whose decoders allocate, decode or give up before they tell.
    """
    readers: dict[str, Callable[[bytes], Size | None]] = {
        "png": _png_size,
        "gif": _gif_size,
        "webp": _webp_size,
        "avif": _avif_size,
        "ico": _ico_size,
    }
    try:
        return readers[image_format](data) if image_format in readers else None
    except struct.error:
        return None


def _png_size(data: bytes, start: int = 0) -> Size | None:
    width, height, _, _, _, _, _, checksum = struct.unpack_from(">IIBBBBBI", data, start + 16)
    # A damaged header is for the decoder to refuse: its numbers are no sizes.
    return (width, height) if zlib.crc32(data[start + 12 : start + 29]) == checksum else None


def _gif_size(data: bytes) -> Size:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _webp_size(data: bytes) -> Size | None:
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


def _avif_size(data: bytes) -> Size | None:
    # Every coded item has an `ispe` property; the picture is the largest (a grid, or the item itself).
    sizes: list[Size] = []
    position = data.find(b"ispe")
    while position >= 0 and len(sizes) < MAX_FRAMES:
        width, height = struct.unpack_from(">II", data, position + 8)
        if data[position - 4 : position] == b"\x00\x00\x00\x14":
            sizes.append((width, height))
        position = data.find(b"ispe", position + 4)
    return max(sizes, key=_area, default=None)


def _ico_size(data: bytes) -> Size | None:
    (count,) = struct.unpack_from("<H", data, 4)
    sizes = []
    for entry in range(6, min(6 + 16 * count, len(data) - 15), 16):
        (start,) = struct.unpack_from("<I", data, entry + 12)
        if data.startswith(PNG_SIGNATURE, start):
            sizes.append(_png_size(data, start) or (0, 0))
        elif len(data) >= start + 12:
            width, height = struct.unpack_from("<ii", data, start + 4)
            sizes.append((abs(width), abs(height) // 2))
    return max(sizes, key=_area, default=None)


def _area(size: Size) -> int:
    return size[0] * size[1]


def count_gif_frames(data: bytes) -> int:
    """Count a GIF's frames by its blocks, without decoding; 1 where it is too damaged to say."""
    position = 13 + _color_table_size(data[10:11])
    frames = 0
    while position < len(data) and frames < MAX_FRAMES:
        introducer = data[position]
        if introducer == 0x2C:
            frames += 1
            position += 11 + _color_table_size(data[position + 9 : position + 10])
        elif introducer == 0x21:
            position += 2
        else:
            break
        while position < len(data) and data[position]:
            position += 1 + data[position]
        position += 1
    return max(frames, 1)


def _color_table_size(flags: bytes) -> int:
    return 3 << ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0


def count_tiff_pages(data: bytes) -> int:
    """Count a TIFF's directories by their chain; 1 where it is too damaged to say."""
    order, big = _tiff_layout(data)
    offset_type, count_type, entry_size = ("Q", "Q", 20) if big else ("I", "H", 12)
    seen: set[int] = set()
    try:
        offset = _first_directory(data)
        while offset and offset not in seen and len(seen) < MAX_FRAMES:
            (entries,) = struct.unpack_from(order + count_type, data, offset)
            seen.add(offset)
            after = offset + struct.calcsize(order + count_type) + entry_size * entries
            (offset,) = struct.unpack_from(order + offset_type, data, after)
    except (struct.error, OverflowError):
        pass
    return max(len(seen), 1)


def _tiff_layout(data: bytes) -> tuple[str, bool]:
    return "<" if data[:2] == b"II" else ">", b"+" in data[2:4]


def _first_directory(data: bytes) -> int:
    order, big = _tiff_layout(data)
    (offset,) = struct.unpack_from(order + "Q", data, 8) if big else struct.unpack_from(order + "I", data, 4)
    return int(offset)


def ends_early(image_format: str, data: bytes) -> bool:
    """Tell whether a file is shorter than its own container says; False where containers don't say."""
    checks: dict[str, Callable[[bytes], bool]] = {
        "avif": _lacks_media_data,
        "jpeg2000": lambda data: not data.rstrip(b"\x00").endswith(b"\xff\xd9"),
        "png": lambda data: _png_size(data) is not None and all(c[0] != b"IEND" for c in _png_chunks(data)),
        "tiff": _directory_overruns,
        "webp": lambda data: int.from_bytes(data[4:8], "little") + 8 > len(data),
    }
    try:
        return image_format in checks and checks[image_format](data)
    except (struct.error, OverflowError):
        return True


def _directory_overruns(data: bytes) -> bool:
    order, big = _tiff_layout(data)
    start = _first_directory(data)
    (entries,) = struct.unpack_from(order + ("Q" if big else "H"), data, start)
    return bool(start + (8 + 20 * entries if big else 2 + 12 * entries) > len(data))


def _lacks_media_data(data: bytes) -> bool:
    position = 0
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, position + 8)
        if kind == b"mdat":
            # A length of 0 says that it goes on to the end, wherever that is.
            return bool(position + length > len(data))
        position += max(length, 8)
    return True


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of each chunk's contents, as far as they are complete."""
    position = len(PNG_SIGNATURE)
    while position + 12 <= len(data):
        end = position + 8 + int.from_bytes(data[position : position + 4], "big")
        if end + 4 > len(data):
            return
        yield data[position + 4 : position + 8], position + 8, end
        position = end + 4


def png_exif(data: bytes) -> bytes | None:
    """Return a PNG's EXIF block, wherever in the file it is; also one that ImageMagick wrote as text."""
    for kind, start, end in _png_chunks(data):
        if kind == b"eXIf":
            return data[start:end]
        if kind in {b"zTXt", b"tEXt"} and data.startswith(RAW_PROFILES, start):
            return _raw_profile(kind, data[start:end])
    return None


def _raw_profile(kind: bytes, content: bytes) -> bytes:
    # keyword NUL [method, deflated] "\nexif\n   length\nhexadecimal digits in lines"
    text = content.partition(b"\x00")[2]
    try:
        if kind == b"zTXt":
            text = zlib.decompressobj().decompress(text[1:], MAX_PROFILE_TEXT)
        return bytes.fromhex(b"".join(text.split()[2:]).decode("ascii"))
    except (zlib.error, ValueError):
        return b"invalid"
