"""Small pictures for people: of outputs, and of what can still be seen of a broken file."""

from __future__ import annotations

import io
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageFile, ImageOps

from darkroom.tasks.imaging.facts import SourceFacts
from darkroom.tasks.imaging.limits import refuse_too_many_pixels

if TYPE_CHECKING:
    from darkroom.tasks.imaging.facts import Allow
    from darkroom.tasks.worker.orders import Orders

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "ICO", "JPEG2000", "AVIF")
"""Formats that Pillow decodes by itself; some others it would hand to a program."""


def thumbnail(data: bytes, orders: Orders, allow: Allow) -> tuple[int, int, bytes]:
    """Return width and height in pixels, at most `orders.side`, and RGB bytes of a picture on the background.

    Very small ones are enlarged. Raises `ImageError`, or whatever Pillow does of what is no image.
    """
    # What is missing is left out by a setting of Pillow's that belongs to the process.
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            refuse_too_many_pixels(SourceFacts("", opened.mode, *opened.size), orders.max_pixels)
            allow(opened.width * opened.height)
            opened.draft(None, (2 * orders.side, 2 * orders.side))
            opened.load()
            picture = opened.convert("RGBA" if opened.has_transparency_data else "RGB")
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    picture.thumbnail((orders.side, orders.side))
    with suppress(Exception):  # what a broken file's metadata says is as doubtful as its pixels
        picture = ImageOps.exif_transpose(picture)
    if picture.mode == "RGBA":
        ground = Image.new("RGBA", picture.size, orders.recipe.background_rgb)
        picture = Image.alpha_composite(ground, picture).convert("RGB")
    times = orders.side // max(picture.size)
    pixels = np.asarray(picture).repeat(times, axis=0).repeat(times, axis=1)
    return pixels.shape[1], pixels.shape[0], pixels.tobytes()
