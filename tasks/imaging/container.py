"""What files say before a decoder sees them, format by format: sizes, missing ends, damage."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from darkroom.tasks.errors import ErrorCode, ImageError
from darkroom.tasks.imaging.avif import avif_ends_in_zeros, avif_size, is_cut_avif
from darkroom.tasks.imaging.gif import gif_size
from darkroom.tasks.imaging.ico import ico_size, png_in_icon
from darkroom.tasks.imaging.jpeg2000 import lacks_tiles
from darkroom.tasks.imaging.png import is_complete_png, is_cut_in_pixels, png_for_decoding, png_size, refuse_damaged_png
from darkroom.tasks.imaging.tiff import lacks_parts, refuse_damaged_parts, tiff_size
from darkroom.tasks.imaging.webp import is_cut_webp, webp_ends_in_zeros, webp_size

if TYPE_CHECKING:
    from collections.abc import Callable

Size = tuple[int, int]
MALFORMED = (struct.error, OverflowError, IndexError)


def declared_size(image_format: str, data: bytes) -> Size | None:
    """Return the largest width and height in pixels that a header asks a decoder for, where it is known.

    Covers the formats whose decoders allocate, decode or give up before they tell.
    """
    readers: dict[str, Callable[[bytes], Size | None]] = {
        "png": png_size,
        "gif": gif_size,
        "webp": webp_size,
        "avif": avif_size,
        "ico": ico_size,
        "tiff": tiff_size,
    }
    try:
        return readers[image_format](data) if image_format in readers else None
    except MALFORMED:
        return None


def for_decoding(image_format: str, data: bytes) -> bytes:
    """Return a file without what its decoder has no need to see."""
    if image_format == "png":
        return png_for_decoding(data)
    start = png_in_icon(data) if image_format == "ico" else None
    return data if start is None else png_for_decoding(data, start)


def refuse_wrong_checksums(image_format: str, data: bytes) -> None:
    """Raise `decode.corrupt` for parts whose checksum is wrong; decoders make pixels of them without a word."""
    if image_format == "png":
        refuse_damaged_png(data)
    elif image_format == "ico" and (start := png_in_icon(data)) is not None:
        refuse_damaged_png(data, start)


def refuse_damaged_pixels(image_format: str, data: bytes) -> None:
    """Raise `ImageError` for pixels that are missing or damaged in a file that was decoded without a word."""
    if image_format == "tiff":
        refuse_damaged_parts(data)
    elif image_format == "png" and is_cut_in_pixels(data):
        raise ImageError(ErrorCode.DECODE_TRUNCATED, "the file ends within its pixels")
    elif image_format == "jpeg2000" and lacks_tiles(data):
        raise ImageError(ErrorCode.DECODE_TRUNCATED, "tiles of the picture are missing")
    elif ends_in_zeros(image_format, data):
        raise ImageError(ErrorCode.DECODE_TRUNCATED, "the end of the picture is lost: there are only zeros")


def ends_in_zeros(image_format: str, data: bytes) -> bool:
    """Tell whether a file has its length, but zeros where the last pixels should be, as far as that can be known."""
    if image_format == "avif":
        return avif_ends_in_zeros(data)
    return image_format == "webp" and webp_ends_in_zeros(data)


def ends_early(image_format: str, data: bytes) -> bool:
    """Tell whether a file is shorter than its own container says; False where containers don't say."""
    checks: dict[str, Callable[[bytes], bool]] = {
        "avif": is_cut_avif,
        "jpeg2000": lambda data: not data.rstrip(b"\x00").endswith(b"\xff\xd9") or lacks_tiles(data),
        "png": lambda data: png_size(data) is not None and not is_complete_png(data),
        "tiff": lacks_parts,
        "webp": is_cut_webp,
    }
    try:
        return image_format in checks and checks[image_format](data)
    except MALFORMED:
        return True
    except ImageError as error:
        return error.code is ErrorCode.DECODE_TRUNCATED
