"""Process pixels in bands of rows, so that intermediate results need little memory compared with the picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

BAND_PIXELS = 1 << 18

Pixels: TypeAlias = npt.NDArray[np.uint8]
Samples: TypeAlias = npt.NDArray[Any]


def bands(height: int, width: int) -> Iterator[slice]:
    """Yield slices of a picture's rows with at most `BAND_PIXELS` pixels each, but at least a row."""
    rows = max(BAND_PIXELS // max(width, 1), 1)
    for top in range(0, height, rows):
        yield slice(top, min(top + rows, height))


def to_array(image: Image.Image, convert: Callable[[Image.Image], Image.Image] | None = None) -> Samples:
    """Return a Pillow image's samples, (height, width[, channels]), after `convert`, which gets a band at a time."""
    width, height = image.size
    first, *others = bands(height, width)
    if not others:
        return np.array(convert(image) if convert else image)

    def samples(rows: slice) -> Samples:
        band = image.crop((0, rows.start, width, rows.stop))
        return np.asarray(convert(band) if convert else band)

    top = samples(first)
    array = np.empty((height, *top.shape[1:]), top.dtype)
    array[first] = top
    for rows in others:
        array[rows] = samples(rows)
    return array


def to_image(array: Samples, convert: Callable[[Samples], Samples] | None = None) -> Image.Image:
    """Return samples, (height, width[, channels]), as a Pillow image, after `convert`, which gets a band at a time."""

    def band(rows: slice) -> Image.Image:
        return Image.fromarray(convert(array[rows]) if convert else array[rows])

    height, width = array.shape[:2]
    first, *others = bands(height, width)
    if not others:
        return band(first)
    top = band(first)
    image = Image.new(top.mode, (width, height))
    image.paste(top)
    for rows in others:
        image.paste(band(rows), (0, rows.start))
    return image
