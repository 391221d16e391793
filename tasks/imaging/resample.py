"""Resample pixels: antialiased when shrinking, and with colour premultiplied by alpha."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from PIL import Image

from darkroom.tasks.imaging.bands import Pixels, Samples, bands, to_array, to_image
from darkroom.tasks.imaging.geometry import Geometry
from darkroom.tasks.settings import Filter

PILLOW_FILTERS = {
    "linear": Image.Resampling.BILINEAR,
    "cubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
WHOLE_COVER_LIMIT = 16
"""If `cover` would resize more than this many times the pixels that it keeps, the source is cropped first."""


def resize(pixels: Pixels, width: int, height: int, method: Filter) -> Pixels:
    """Resize uint8 pixels, gray, RGB or RGB with straight alpha, to width × height."""
    if pixels.shape[:2] == (height, width):
        return pixels
    box = (0.0, 0.0, float(pixels.shape[1]), float(pixels.shape[0]))
    return _keep_alpha_apart(pixels, box, (width, height), method)


def resize_and_crop(pixels: Pixels, geometry: Geometry, method: Filter) -> Pixels:
    """Resize oriented pixels as planned, and return only the part that the plan keeps."""
    width, height = geometry.width, geometry.height
    left, top = -geometry.left, -geometry.top
    whole = geometry.resized_width * geometry.resized_height
    if method not in PILLOW_FILTERS and whole <= WHOLE_COVER_LIMIT * width * height:
        resized = resize(pixels, geometry.resized_width, geometry.resized_height, method)
        return resized[top : top + height, left : left + width]
    per_x = pixels.shape[1] / geometry.resized_width
    per_y = pixels.shape[0] / geometry.resized_height
    right = min((left + width) * per_x, pixels.shape[1])
    bottom = min((top + height) * per_y, pixels.shape[0])
    box = (left * per_x, top * per_y, right, bottom)
    return _keep_alpha_apart(pixels, box, (width, height), method)


def _keep_alpha_apart(
    pixels: Pixels, box: tuple[float, float, float, float], size: tuple[int, int], method: Filter
) -> Pixels:
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
        product = _area_or_linear(product, *size)
        return _unmultiply((product[:, :, channel] for channel in range(3)), product[:, :, 3])

    # Pillow resamples more than eight bits only one channel at a time, as floats.
    def resampled(channel: int) -> Samples:
        image = to_image(pixels, lambda band: _premultiply(band, channel).astype(np.float32))
        return to_array(image.resize(size, _pillow_filter(box, size, method), box))

    return _unmultiply((resampled(channel) for channel in range(3)), resampled(3))


def _premultiply(pixels: Pixels, channel: int) -> Samples:
    """Return colour × alpha, or alpha × 255 for channel 3, which has the same scale; both fit into 16 bits."""
    alpha = pixels[:, :, 3].astype(np.uint16)
    return alpha * np.uint16(255) if channel == 3 else pixels[:, :, channel] * alpha


def _unmultiply(colors: Iterable[Samples], alpha: Samples) -> Pixels:
    """Return (height, width, 4) pixels with straight alpha from the channels that `_premultiply` returned."""
    straight = np.empty((*alpha.shape, 4), np.uint8)
    for channel, color in enumerate(colors):
        for rows in bands(*alpha.shape):
            values = color[rows] * np.float32(255) / np.maximum(alpha[rows].astype(np.float32), 1)
            # A filter overshoots in colour × alpha and alpha alike, so clip only their quotient.
            straight[rows, :, channel] = np.clip(np.rint(values), 0, 255)
        del color  # before the next one is made
    for rows in bands(*alpha.shape):
        straight[rows, :, 3] = np.clip(np.rint(alpha[rows].astype(np.float32) / np.float32(255)), 0, 255)
    return straight


def _is_whole(samples: Samples, box: tuple[float, float, float, float]) -> bool:
    return box == (0, 0, samples.shape[1], samples.shape[0])


def _resample(samples: Pixels, box: tuple[float, float, float, float], size: tuple[int, int], method: Filter) -> Pixels:
    whole = _is_whole(samples, box)
    if whole and method == "nearest":
        return cv2.resize(samples, size, interpolation=cv2.INTER_NEAREST_EXACT)  # type: ignore[return-value]
    if whole and method not in PILLOW_FILTERS:
        return _area_or_linear(samples, *size)
    return to_array(to_image(samples).resize(size, _pillow_filter(box, size, method), box))


def _area_or_linear(samples: Samples, width: int, height: int) -> Samples:
    old_height, old_width = samples.shape[:2]
    if width <= old_width and height <= old_height:
        return cv2.resize(samples, (width, height), interpolation=cv2.INTER_AREA)
    # OpenCV's area filter averages only where both axes shrink: shrink one axis, then enlarge the other.
    smaller = (min(width, old_width), min(height, old_height))
    if smaller != (old_width, old_height):
        samples = cv2.resize(samples, smaller, interpolation=cv2.INTER_AREA)
    return cv2.resize(samples, (width, height), interpolation=cv2.INTER_LINEAR)


def _pillow_filter(box: tuple[float, float, float, float], size: tuple[int, int], method: Filter) -> Image.Resampling:
    if method == "nearest":
        return Image.Resampling.NEAREST
    shrinks = size[0] < box[2] - box[0] and size[1] < box[3] - box[1]
    return PILLOW_FILTERS.get(method, Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR)
