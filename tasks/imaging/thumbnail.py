"""Small pictures for people: of outputs, and of what can still be seen of a broken file."""

from __future__ import annotations

import io
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageFile, ImageOps

from tasks.errors import ErrorCode, ImageError

if TYPE_CHECKING:
    from tasks.imaging.facts import Allow

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "ICO", "JPEG2000", "AVIF")
"""Formats that Pillow decodes by itself; some others it would hand to a program."""

Thumbnail = tuple[int, int, bytes]
"""Width and height in pixels, and RGB bytes."""


def thumbnail(data: bytes, side: int, background: tuple[int, int, int], allow: Allow) -> Thumbnail:
    """Return an output on a background, at most so many pixels wide and high; very small ones are enlarged."""
    with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as opened:
        allow(opened.width * opened.height)
        opened.thumbnail((side, side))
        picture = opened.convert("RGBA" if opened.has_transparency_data else "RGB")
    if picture.mode == "RGBA":
        ground = Image.new("RGBA", picture.size, background)
        picture = Image.alpha_composite(ground, picture).convert("RGB")
    times = side // max(picture.size)
    pixels = np.asarray(picture).repeat(times, axis=0).repeat(times, axis=1)
    return pixels.shape[1], pixels.shape[0], pixels.tobytes()


def preview(data: bytes, side: int, max_pixels: int, allow: Allow) -> Thumbnail:
    """Return what a broken image file still shows, at most so many pixels wide and high.

    Raises `ImageError` or whatever Pillow does if nothing can be seen of it.
    """
    # What is missing is left out by a setting of Pillow's that belongs to the process.
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise ImageError(ErrorCode.DECODE_TOO_MANY_PIXELS, "too many pixels for a preview")
            allow(image.width * image.height)
            image.draft(None, (2 * side, 2 * side))
            image.load()
            shown = image.convert("RGB")
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    if shown.getcolors(1):
        raise ImageError(ErrorCode.DECODE_CORRUPT, "nothing can be seen")
    shown.thumbnail((side, side))
    with suppress(Exception):  # what its metadata says is as doubtful as its pixels
        shown = ImageOps.exif_transpose(shown)
    return shown.width, shown.height, shown.tobytes()
