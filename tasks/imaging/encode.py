"""Encode pixels as an output file without metadata."""

from __future__ import annotations

import cv2
import numpy as np
import simplejpeg

from darkroom.tasks.errors import ErrorCode, ImageError
from darkroom.tasks.imaging.bands import Pixels, bands
from darkroom.tasks.imaging.geometry import Geometry
from darkroom.tasks.settings import Format, Recipe

MAX_SIDE = {"jpeg": 65535, "webp": 16383, "png": 1_000_000}
"""Longest side in pixels that a format allows; for PNG, that its readers accept."""


def refuse_oversized(geometry: Geometry, output_format: Format, max_pixels: int) -> None:
    """Raise `encode.failed` if the output would have too long a side for its format, or too many pixels.

    Even small sources may have such outputs: `fit="outside"` enlarges a thin strip until it covers the box.
    """
    size, longest = f"{geometry.width:,} × {geometry.height:,}", MAX_SIDE[output_format]
    if max(geometry.width, geometry.height) > longest:
        message = f"the output of {size} pixels is longer than {longest:,} pixels, the limit of {output_format}"
        raise ImageError(ErrorCode.ENCODE_FAILED, message)
    if geometry.width * geometry.height > max_pixels:
        message = f"the output of {size} pixels is over the limit of {max_pixels:,} (`max_pixels`)"
        raise ImageError(ErrorCode.ENCODE_FAILED, message)


def encode(pixels: Pixels, recipe: Recipe) -> bytes:
    """Return gray, RGB or RGBA pixels in the recipe's format and quality; may overwrite `pixels`.

    Raises `encode.failed`, or the encoder's exception.
    """
    if recipe.format == "jpeg":
        return _encode_jpeg(pixels, recipe.quality)
    parameters = [cv2.IMWRITE_WEBP_QUALITY, recipe.quality] if recipe.format == "webp" else []
    encoded, buffer = cv2.imencode(f".{recipe.format}", _to_bgr(pixels), parameters)
    if not encoded:
        raise ImageError(ErrorCode.ENCODE_FAILED, f"the {recipe.format} encoder failed")
    return buffer.tobytes()


def _encode_jpeg(pixels: Pixels, quality: int) -> bytes:
    layout, subsampling = ("GRAY", "Gray") if pixels.ndim == 2 else ("RGB", "420")
    samples = np.ascontiguousarray(np.atleast_3d(pixels))
    return bytes(simplejpeg.encode_jpeg(samples, quality, layout, subsampling))


def _to_bgr(pixels: Pixels) -> Pixels:
    if pixels.ndim == 2:
        return pixels
    code = cv2.COLOR_RGBA2BGRA if pixels.shape[2] == 4 else cv2.COLOR_RGB2BGR
    swapped = pixels if pixels.flags.writeable else np.empty_like(pixels)
    for rows in bands(*pixels.shape[:2]):
        swapped[rows] = cv2.cvtColor(pixels[rows], code)
    return swapped


def visible_channels(pixels: Pixels, output_format: Format) -> int:
    """Return the number of channels that a decoder of the encoded pixels returns.

    WebP has no gray, and omits alpha if all pixels are opaque.
    """
    if output_format == "webp":
        has_alpha = pixels.ndim == 3 and pixels.shape[2] == 4
        return 4 if has_alpha and pixels[:, :, 3].min() < 255 else 3
    return 1 if pixels.ndim == 2 else int(pixels.shape[2])
