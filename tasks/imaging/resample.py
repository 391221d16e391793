"""Resampling: every filter antialiased when it shrinks, transparency never bleeding into colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from tasks.imaging.facts import Pixels, Samples
    from tasks.imaging.geometry import Geometry
    from tasks.recipe import Filter

PILLOW_FILTERS = {
    "linear": Image.Resampling.BILINEAR,
    "cubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
WHOLE_COVER_LIMIT = 16
"""A cover that resizes this many times the pixels that it keeps is cut from the source instead."""


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
    return _unmultiply(_resample(_premultiply(pixels), box, size, method))


def _premultiply(pixels: Pixels) -> Samples:
    # Sixteen bits hold colour × alpha exactly, and alpha × 255 beside it on the same scale.
    alpha = pixels[:, :, 3:].astype(np.uint16)
    product = pixels * alpha
    product[:, :, 3] = alpha[:, :, 0] * np.uint16(255)
    return product


def _unmultiply(product: Samples) -> Pixels:
    # Where a filter overshoots it does so in colour × alpha and alpha alike: clip only what they give.
    alpha = product[:, :, 3:].astype(np.float32)
    color = product[:, :, :3] * np.float32(255) / np.maximum(alpha, 1)
    straight = np.concatenate((color, alpha / np.float32(255)), axis=2)
    return np.clip(np.rint(straight), 0, 255).astype(np.uint8)


def _resample(
    samples: Samples, box: tuple[float, float, float, float], size: tuple[int, int], method: Filter
) -> Samples:
    whole = box == (0, 0, samples.shape[1], samples.shape[0])
    if whole and method == "nearest":
        nearest: Samples = cv2.resize(samples, size, interpolation=cv2.INTER_NEAREST_EXACT)
        return nearest
    if whole and method not in PILLOW_FILTERS:
        return _area_or_linear(samples, *size)
    return _with_pillow(samples, box, size, _pillow_filter(box, size, method))


def _area_or_linear(samples: Samples, width: int, height: int) -> Samples:
    old_height, old_width = samples.shape[:2]
    if width <= old_width and height <= old_height:
        return cv2.resize(samples, (width, height), interpolation=cv2.INTER_AREA)
    # OpenCV's area filter averages only where both axes shrink: shrink one, then enlarge the other.
    smaller = (min(width, old_width), min(height, old_height))
    if smaller != (old_width, old_height):
        samples = cv2.resize(samples, smaller, interpolation=cv2.INTER_AREA)
    return cv2.resize(samples, (width, height), interpolation=cv2.INTER_LINEAR)


def _pillow_filter(box: tuple[float, float, float, float], size: tuple[int, int], method: Filter) -> Image.Resampling:
    if method == "nearest":
        return Image.Resampling.NEAREST
    shrinks = size[0] < box[2] - box[0] and size[1] < box[3] - box[1]
    return PILLOW_FILTERS.get(method, Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR)


def _with_pillow(
    samples: Samples, box: tuple[float, float, float, float], size: tuple[int, int], method: Image.Resampling
) -> Samples:
    if samples.dtype == np.uint8:
        resized = Image.fromarray(samples).resize(size, method, box)
        return np.array(resized)
    # Pillow resamples more than eight bits only one channel at a time, as floats.
    bands = np.moveaxis(samples, 2, 0)
    floats = [Image.fromarray(band.astype(np.float32)).resize(size, method, box) for band in bands]
    stacked: Samples = np.stack([np.array(band) for band in floats], axis=2)
    return stacked
