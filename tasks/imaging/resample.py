"""Resample pixels, antialiased when shrinking, with colour premultiplied by alpha."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import cv2
import numpy as np
from PIL import Image

from darkroom.tasks.imaging.bands import Pixels, Samples, bands, to_array, to_image
from darkroom.tasks.imaging.records import Extent, Rectangle, Size
from darkroom.tasks.settings import Filter

PILLOW_FILTERS = {
    "linear": Image.Resampling.BILINEAR,
    "cubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
CROP_FIRST_RATIO = 16
"""If resizing the whole source would make more than this many times the pixels that a crop keeps, crop it first."""

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""


def resize(pixels: Pixels, width: int, height: int, method: Filter, extent: Extent | None = None) -> Pixels:
    """Return pixels, (height, width[, 3 or 4]), resized to `width` × `height`.

    `extent` is as in `Decoded`: the width and height of `pixels` that the picture covers. It may exclude a part of the
    last column and row if both axes shrink.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    return _keep_alpha_apart(pixels, (0, 0, *(extent or pixels.shape[1::-1])), (width, height), method)


def resize_and_crop(
    pixels: Pixels, size: Size, crop: Rectangle, method: Filter, extent: Extent | None = None
) -> Pixels:
    """Return the part `crop` of pixels resized to `size`; `extent` is as for `resize`."""
    left, top, width, height = crop
    wide, high = extent or pixels.shape[1::-1]
    enlarged = size[0] * size[1] > max(CROP_FIRST_RATIO * width * height, pixels.shape[0] * pixels.shape[1])
    if method not in PILLOW_FILTERS and not enlarged:
        resized = resize(pixels, *size, method, extent)
        return resized[top : top + height, left : left + width]
    per_x, per_y = wide / size[0], high / size[1]
    box = (left * per_x, top * per_y, min((left + width) * per_x, wide), min((top + height) * per_y, high))
    return _keep_alpha_apart(pixels, box, (width, height), method)


def _keep_alpha_apart(pixels: Pixels, box: Box, size: Size, method: Filter) -> Pixels:
    if pixels.ndim == 2 or pixels.shape[2] == 3 or method == "nearest":
        return _resample(pixels, box, size, method)
    if pixels[:, :, 3].min() == 255:
        opaque = _resample(np.ascontiguousarray(pixels[:, :, :3]), box, size, method)
        return np.dstack((opaque, np.full(opaque.shape[:2], 255, np.uint8)))
    if _is_whole(pixels, box) and method not in PILLOW_FILTERS:
        product = np.empty(pixels.shape, np.uint16)
        for rows in bands(*pixels.shape[:2]):
            for channel in range(4):
                product[rows, :, channel] = _premultiply(pixels[rows], channel)
        product = _area_or_linear(product, *size, box[2:])
        return _unmultiply((product[:, :, channel] for channel in range(3)), product[:, :, 3])

    # Pillow resamples more than eight bits only one channel at a time, as floats.
    def resampled(channel: int) -> Samples:
        image = to_image(pixels, lambda band: _premultiply(band, channel).astype(np.float32))
        return to_array(image.resize(size, _pillow_filter(method), box))

    return _unmultiply((resampled(channel) for channel in range(3)), resampled(3))


def _premultiply(pixels: Pixels, channel: int) -> Samples:
    """Return colour × alpha; for channel 3, alpha × 255, which has the same scale. Both fit into 16 bits."""
    alpha = pixels[:, :, 3].astype(np.uint16)
    return alpha * np.uint16(255) if channel == 3 else pixels[:, :, channel] * alpha


def _unmultiply(colors: Iterable[Samples], alpha: Samples) -> Pixels:
    """Return (height, width, 4) pixels with straight alpha from the channels that `_premultiply` returned."""
    straight = np.empty((*alpha.shape, 4), np.uint8)
    for channel, color in enumerate(colors):
        for rows in bands(*alpha.shape):
            values = color[rows] * np.float32(255) / np.maximum(alpha[rows].astype(np.float32), 1)
            # Filters overshoot both in colour × alpha and in alpha, so clip only the quotient.
            straight[rows, :, channel] = np.clip(np.rint(values), 0, 255)
        del color  # free it before the generator makes the next
    for rows in bands(*alpha.shape):
        straight[rows, :, 3] = np.clip(np.rint(alpha[rows].astype(np.float32) / np.float32(255)), 0, 255)
    return straight


def _is_whole(samples: Samples, box: Box) -> bool:
    height, width = samples.shape[:2]
    return box[:2] == (0, 0) and width - 1 < box[2] <= width and height - 1 < box[3] <= height


def _resample(samples: Pixels, box: Box, size: Size, method: Filter) -> Pixels:
    whole = _is_whole(samples, box)
    if whole and method == "nearest":
        return cv2.resize(samples, size, interpolation=cv2.INTER_NEAREST_EXACT)  # type: ignore[return-value]
    if whole and method not in PILLOW_FILTERS:
        return _area_or_linear(samples, *size, box[2:])
    return to_array(to_image(samples).resize(size, _pillow_filter(method), box))


def _area_or_linear(samples: Samples, width: int, height: int, extent: Extent) -> Samples:
    old_height, old_width = samples.shape[:2]
    if width <= old_width and height <= old_height:
        # Given scales, not a size, OpenCV rounds the size, perhaps up.
        fx, fy = width / extent[0], height / extent[1]
        return cv2.resize(samples, None, fx=fx, fy=fy, interpolation=cv2.INTER_AREA)[:height, :width]
    # OpenCV's area filter averages only if both axes shrink, so shrink one axis, then enlarge the other.
    smaller = (min(width, old_width), min(height, old_height))
    if smaller != (old_width, old_height):
        samples = cv2.resize(samples, smaller, interpolation=cv2.INTER_AREA)
    return cv2.resize(samples, (width, height), interpolation=cv2.INTER_LINEAR)


def _pillow_filter(method: Filter) -> Image.Resampling:
    # `auto` and `area` come here only for crops of much enlarged sources, which they resize linearly.
    return Image.Resampling.NEAREST if method == "nearest" else PILLOW_FILTERS.get(method, Image.Resampling.BILINEAR)
