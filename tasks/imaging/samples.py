"""Decoded images to pixels: depths, palettes, keys and masks to 8-bit gray, RGB or RGB with straight alpha."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import PngImagePlugin

from darkroom.tasks.errors import ErrorCode, ImageError
from darkroom.tasks.imaging.bands import bands, to_array
from darkroom.tasks.imaging.png import png_for_decoding

if TYPE_CHECKING:
    from PIL import Image

    from darkroom.tasks.imaging.facts import Pixels, Samples, SourceFacts

TIFF_BITS, TIFF_PHOTOMETRIC = 258, 262
WHITE_IS_ZERO = 0
ALPHA_MODES = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})


def to_pixels(image: Image.Image, facts: SourceFacts, data: bytes | None) -> Pixels:
    """Return the pixels of a loaded image that isn't CMYK.

    `data` is its file, for the second look that deep colours need; None where that is cut. Raises `ImageError`,
    `decode.unsupported`, for samples of 32 bits.
    """
    mode = image.mode
    if mode.startswith("I;16"):
        return _gray_from_16_bits(to_array(image), image)
    if mode == "I" and facts.format == "ppm":
        return _scale_16_bits(to_array(image).astype(np.uint16))
    if mode in {"I", "F"}:
        message = "32-bit samples are not supported: nothing says which value is white"
        raise ImageError(ErrorCode.DECODE_UNSUPPORTED, message, facts)
    if mode in {"1", "L"} and not image.has_transparency_data:
        return to_array(image, lambda band: band.convert("L"))
    wanted = "RGBA" if mode in ALPHA_MODES or image.has_transparency_data else "RGB"
    pixels = to_array(image, lambda band: band.convert(wanted))
    if facts.format == "png" and data is not None and data[24] == 16 and "transparency" not in image.info:
        image.close()
        return _png_from_16_bits(data, pixels)
    if data is not None and mode == "RGB" and getattr(image, "tag_v2", {}).get(TIFF_BITS) == (16, 16, 16):
        image.close()
        return _tiff_from_16_bits(data, pixels)
    return pixels


def _gray_from_16_bits(samples: Samples, image: Image.Image) -> Pixels:
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(TIFF_BITS, (16,))[0]
    pixels = _scale_16_bits(samples, (1 << bits) - 1)
    if tags.get(TIFF_PHOTOMETRIC) == WHITE_IS_ZERO:
        return np.subtract(255, pixels, dtype=np.uint8)
    return pixels


def _scale_16_bits(samples: Samples, white: int = 65535) -> Pixels:
    scaled = np.empty(samples.shape, np.uint8)
    for rows in bands(*samples.shape[:2]):
        scaled[rows] = cv2.convertScaleAbs(samples[rows].astype(np.uint16, copy=False), alpha=255 / white)
    return scaled


def _png_from_16_bits(data: bytes, pixels: Pixels) -> Pixels:
    # Pillow drops the lower byte of 16-bit colours. Told that the bytes come the other way round, it drops the upper.
    again = PngImagePlugin.PngImageFile(io.BytesIO(png_for_decoding(data)))
    raw_mode = str(again.tile[0].args)
    lower_first = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L", "LA;16B": "RGBA"}[raw_mode]
    again.tile = [again.tile[0]._replace(args=lower_first)]
    lower = to_array(again)
    again.close()
    if raw_mode == "LA;16B":
        lower = lower[:, :, [1, 1, 1, 3]]  # Gray and alpha, two bytes of each.
    rounded = np.empty_like(pixels)
    for rows in bands(*pixels.shape[:2]):
        rounded[rows] = _scale_16_bits(pixels[rows] * np.uint16(256) + lower[rows])
    return rounded


def _tiff_from_16_bits(data: bytes, pixels: Pixels) -> Pixels:
    # Here OpenCV keeps the lower byte. Its word is taken only where the two agree on everything but that.
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.dtype != np.uint16 or decoded.shape != pixels.shape:
        return pixels
    rounded = np.empty_like(pixels)
    for rows in bands(*pixels.shape[:2]):
        rounded[rows] = cv2.cvtColor(_scale_16_bits(decoded[rows]), cv2.COLOR_BGR2RGB)
        if cv2.absdiff(rounded[rows], pixels[rows]).max() > 1:
            return pixels
    return rounded
