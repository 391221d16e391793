"""Pictures for tests of the imaging code, and their expected outputs."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageCms

from darkroom.tasks.errors import ErrorCode
from darkroom.tasks.imaging import Transformed, TransformError
from darkroom.tasks.imaging.transform import transform
from darkroom.tasks.settings import Recipe
from data import formats, photos

LIMIT = 100_000_000

SIZE = {"width": 120, "height": 80}
"""The settings of a recipe that keeps the size of `picture()`."""

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def picture(width=120, height=80, seed=0):
    """Return a smooth, asymmetric RGB picture with some texture: no two corners are alike."""
    y, x = np.mgrid[0:height, 0:width].astype(float)
    x, y = x / max(width - 1, 1), y / max(height - 1, 1)
    channels = [200 * x + 30, 220 * y + 10, 120 + 100 * np.sin(5 * x) * np.cos(4 * y)]
    noise = np.random.default_rng(seed).normal(0, 3, (height, width, 1))
    return np.clip(np.stack(channels, axis=2) + noise, 0, 255).astype(np.uint8)


def encoded(pixels, image_format, **options):
    """Encode an array, or a Pillow image, with Pillow."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    return photos.encoded(image, image_format, **options)


def jpeg(pixels, quality=95, **options):
    return encoded(pixels, "JPEG", quality=quality, **options)


def exif_with(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def stored(pixels, orientation):
    """Return the upright pixels as a camera with this EXIF orientation stores them."""
    return formats.stored(Image.fromarray(pixels), orientation)


def run(data, max_pixels=LIMIT, **recipe) -> Transformed:
    return transform(data, Recipe(**recipe), max_pixels)


def lossless(data, **recipe):
    """Return the pixels of a PNG output, which only the transformation changes."""
    return pixels_of(run(data, format="png", **recipe))


def pixels_of(result):
    with Image.open(io.BytesIO(result.data)) as image:
        return np.array(image)


def rounded(samples, white=65535):
    """Return samples scaled to 8 bits."""
    return np.floor(samples.astype(np.float64) * 255 / white + 0.5).astype(np.uint8)


def mean_difference(a, b):
    assert a.shape == b.shape
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


def failure(data, max_pixels=LIMIT, **recipe) -> tuple[ErrorCode, TransformError]:
    """Return the code and error of a transformation that fails; raise `AssertionError` if it succeeds."""
    try:
        run(data, max_pixels, **recipe)
    except TransformError as error:
        return error.code, error
    raise AssertionError("no TransformError was raised")


def facts_of(data, max_pixels=LIMIT):
    """Return a source's facts, whether it can be transformed or not."""
    try:
        return run(data, max_pixels, width=1, height=1).facts
    except TransformError as error:
        return error.facts
