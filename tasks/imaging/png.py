"""PNG: its chunks, what they say, whether they are undamaged, and which of them a decoder needs."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

from darkroom.tasks.errors import ErrorCode, ImageError
from darkroom.tasks.imaging.exif import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
DECODED = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
"""What makes the pixels of the picture, or of an animation's first frame. Decoders never see the rest, such as
texts that unpack to a thousand times their size."""

RAW_PROFILES = (b"Raw profile type exif\x00", b"Raw profile type APP1\x00")

Chunk = tuple[bytes, int, int]
"""A chunk's kind, and where its contents start and end."""


def png_size(data: bytes, start: int = 0) -> tuple[int, int] | None:
    """Return width and height in pixels; None if the header is damaged, so that its numbers are none."""
    width, height, _, _, _, _, _, checksum = struct.unpack_from(">IIBBBBBI", data, start + 16)
    return (width, height) if zlib.crc32(data[start + 12 : start + 29]) == checksum else None


def png_chunks(data: bytes, start: int = 0) -> Iterator[Chunk]:
    """Yield the chunks up to and with the last one, as far as they are complete."""
    position = start + len(SIGNATURE)
    while position + 12 <= len(data):
        end = position + 8 + int.from_bytes(data[position : position + 4], "big")
        if end + 4 > len(data):
            return
        kind = data[position + 4 : position + 8]
        yield kind, position + 8, end
        if kind == b"IEND":
            return
        position = end + 4


def is_complete_png(data: bytes) -> bool:
    """Tell whether the last chunk is there."""
    return any(kind == b"IEND" for kind, _, _ in png_chunks(data))


def is_cut_in_pixels(data: bytes) -> bool:
    """Tell whether the file ends within a chunk of pixels; there is no checksum then, and they may be anything."""
    position = len(SIGNATURE)
    for _, _, end in png_chunks(data):
        position = end + 4
    return data.startswith(b"IDAT", position + 4)


def refuse_damaged_png(data: bytes, start: int = 0) -> None:
    """Raise `decode.corrupt` if a chunk's checksum is wrong.

    Decoders look at few of them, and make pixels of anything.
    """
    for _, begin, end in png_chunks(data, start):
        checksum = zlib.crc32(memoryview(data)[begin - 4 : end])
        if checksum != int.from_bytes(data[end : end + 4], "big"):
            kind = data[begin - 4 : begin].decode("latin-1")
            raise ImageError(ErrorCode.DECODE_CORRUPT, f"the checksum of the PNG's {kind!a} chunk is wrong")


def png_for_decoding(data: bytes, start: int = 0) -> bytes:
    """Return a file with only those chunks of a PNG that make its pixels; what is before `start` stays."""
    view, parts, kept = memoryview(data), [], 0
    for kind, begin, end in png_chunks(data, start):
        if kind not in DECODED:
            if kept < begin - 8:
                parts.append(view[kept : begin - 8])
            kept = end + 4
    return b"".join((*parts, view[kept:])) if kept else data


def count_png_frames(data: bytes) -> int:
    """Return the number of frames that an animation says it has; the picture itself may be one more."""
    frames, is_frame = 0, False
    for kind, start, end in png_chunks(data):
        if kind == b"IDAT":
            break
        if kind == b"acTL" and end - start >= 8:
            frames = int.from_bytes(data[start : start + 4], "big")
        is_frame = is_frame or kind == b"fcTL"
    return frames + (not is_frame) if frames else 1


def png_profile(data: bytes) -> bytes | None:
    """Return the ICC profile, None without one; an invalid one is empty."""
    for kind, start, end in png_chunks(data):
        if kind == b"IDAT":
            break
        if kind == b"iCCP":
            # name NUL method, 0: deflated
            _, _, content = data[start:end].partition(b"\x00")
            return _inflate(content[1:]) if content[:1] == b"\x00" else b""
    return None


def png_exif(data: bytes) -> bytes | None:
    """Return the EXIF block, wherever in the file it is; also one that ImageMagick wrote as text."""
    text: bytes | None = None
    for kind, start, end in png_chunks(data):
        if kind == b"eXIf":
            return PREFIX + data[start:end]
        if text is None and kind in {b"zTXt", b"tEXt"} and data.startswith(RAW_PROFILES, start):
            text = _raw_profile(kind, data[start:end])
    return text


def _raw_profile(kind: bytes, content: bytes) -> bytes:
    # keyword NUL [method, deflated] "\nexif\n   length\nhexadecimal digits in lines"
    text = content.partition(b"\x00")[2]
    if kind == b"zTXt":
        text = _inflate(text[1:])
    try:
        return bytes.fromhex(b"".join(text.split()[2:]).decode("ascii")) or b"invalid"
    except ValueError:
        return b"invalid"


def _inflate(content: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(content)
    except zlib.error:
        return b""
