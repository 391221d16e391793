"""Transform an image file into an output file, or inspect or describe one: the entry of the package."""

from __future__ import annotations

import sys
import warnings as python_warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from time import perf_counter

import cv2
import numpy as np
from PIL import AvifImagePlugin

from darkroom.tasks.errors import ErrorCode, ImageError
from darkroom.tasks.imaging.bands import Pixels, bands
from darkroom.tasks.imaging.color import flatten, to_gray, to_rgb
from darkroom.tasks.imaging.encode import encode, refuse_oversized, visible_channels
from darkroom.tasks.imaging.exif import apply_orientation, stored_rectangle
from darkroom.tasks.imaging.failures import translate, translate_encoding
from darkroom.tasks.imaging.formats import DecodeOptions, EncodedImage, recognise
from darkroom.tasks.imaging.formats.base import TOLERATED_DAMAGE, Decoded
from darkroom.tasks.imaging.geometry import Geometry, plan_geometry
from darkroom.tasks.imaging.limits import refuse_too_many_pixels
from darkroom.tasks.imaging.records import Allow, Inspected, Size, SourceFacts, Transformed, unlimited
from darkroom.tasks.imaging.resample import resize, resize_and_crop
from darkroom.tasks.settings import Filter, Recipe

OVERSAMPLING = {"fast": 1, "balanced": 2}
"""Least ratio of a scaled-down JPEG's width and height to those of the output, by the recipe's `jpeg_decoding`."""


def configure_codecs() -> None:
    """Limit codecs to one thread and silence Pillow's warnings, once in each codec process; output bytes are the same.

    There is a codec process for each core, so more threads would not be faster.
    """
    cv2.setNumThreads(1)
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    python_warnings.simplefilter("ignore")


def transform(data: bytes | memoryview, recipe: Recipe, max_pixels: int, allow: Allow = unlimited) -> Transformed:
    """Return an image file transformed as the recipe says; the same bytes and recipe give the same output bytes.

    Transparency is flattened on the recipe's background for JPEG and gray outputs, else kept; padding is opaque.

    Args:
        data: the file's bytes.
        recipe: how to transform it.
        max_pixels: upper limit on the source, checked by its header before any pixel is decoded, and on the output.
        allow: called with the source's number of pixels after the header was read, then with the output's if larger.

    Raises:
        TransformError: `source.empty`, a `decode` code, or `encode.failed`; no other error, whatever the bytes are.
    """
    started = perf_counter()
    facts, geometry, decoded = _decode(data, recipe, max_pixels, allow)
    warnings = tuple(sorted(set(decoded.warnings)))
    decoded_at = perf_counter()
    try:
        pixels = _compose(decoded, geometry, recipe)
        del decoded  # free its pixels before encoding
        resized_at = perf_counter()
        channels = visible_channels(pixels, recipe.format)
        encoded = encode(pixels, recipe)
    except Exception as error:
        raise translate_encoding(error, facts) from error
    encoded_at = perf_counter()
    return Transformed(
        data=encoded,
        facts=facts,
        format=recipe.format,
        width=geometry.width,
        height=geometry.height,
        channels=channels,
        scale_x=geometry.scale_x,
        scale_y=geometry.scale_y,
        offset_x=float(geometry.left),
        offset_y=float(geometry.top),
        warnings=warnings,
        decode_ms=(decoded_at - started) * 1e3,
        resize_ms=(resized_at - decoded_at) * 1e3,
        encode_ms=(encoded_at - resized_at) * 1e3,
    )


def inspect_image(data: bytes, allow: Allow = unlimited) -> Inspected:
    """Decode all of an image file, and return what it is; raises `TransformError`."""
    with opened(data, sys.maxsize, allow) as (image, facts):
        pixels = image.decode(DecodeOptions((facts.width, facts.height))).pixels
    height, width, *channels = pixels.shape
    return Inspected(facts.format, width, height, *(channels or [1]))


def describe_bytes(data: bytes) -> str:
    """Return a few words about what a file seems to be, by its header only, without a decoder."""
    try:
        image = recognise(data)(data)
    except ImageError as error:
        return error.message if error.code is ErrorCode.DECODE_UNSUPPORTED else "no image"
    try:
        size = image.stated_size() or (0, 0)
    except ImageError:
        return f"{image.name} with a broken header"
    return f"{image.name}, {size[0]} × {size[1]} pixels" if all(size) else image.name


@contextmanager
def opened(data: bytes | memoryview, max_pixels: int, allow: Allow) -> Iterator[tuple[EncodedImage, SourceFacts]]:
    """Yield an opened image file and its facts; translate any exception in the block into a `TransformError`.

    `max_pixels` and `allow` are as for `transform`.
    """

    def admit(facts: SourceFacts) -> None:
        refuse_too_many_pixels(facts, max_pixels)
        allow(facts.width * facts.height)

    image = recognise(data)(data)
    try:
        yield image, image.open(admit)
    except Exception as error:
        raise translate(error, image.facts, image.is_cut) from error


def _decode(
    data: bytes | memoryview, recipe: Recipe, max_pixels: int, allow: Allow
) -> tuple[SourceFacts, Geometry, Decoded]:
    with opened(data, max_pixels, allow) as (image, facts):
        geometry = plan_geometry(*facts.oriented_size, recipe)
        refuse_oversized(geometry, recipe.format, max_pixels)
        if geometry.width * geometry.height > facts.width * facts.height:
            allow(geometry.width * geometry.height)
        # `nearest` needs the original pixels; scaling down while decoding averages them.
        times = None if recipe.filter == "nearest" else OVERSAMPLING.get(recipe.jpeg_decoding)
        width, height = _stored_size(geometry, facts.orientation)
        min_size = (width * times, height * times) if times else (facts.width, facts.height)
        options = DecodeOptions(min_size, gray=recipe.color == "gray", tolerant=recipe.damage == "tolerant")
        decoded = image.decode(options)
        _refuse_blank_picture(decoded)
    return facts, geometry, decoded


def _refuse_blank_picture(decoded: Decoded) -> None:
    """Raise `ImageError` for a damaged picture of one colour: decoders return that if they can read no pixel."""
    pixels = decoded.pixels
    code = next((code for code, warning in TOLERATED_DAMAGE.items() if warning in decoded.warnings), None)
    if code and all((pixels[rows] == pixels[0, 0]).all() for rows in bands(*pixels.shape[:2])):
        raise ImageError(code, "none of the picture's pixels can be read")


def _stored_size(geometry: Geometry, orientation: int) -> Size:
    """Return the resized width and height before orientation."""
    size = geometry.resized_width, geometry.resized_height
    return size[::-1] if orientation >= 5 else size


def _compose(decoded: Decoded, geometry: Geometry, recipe: Recipe) -> Pixels:
    pixels = _place(decoded, geometry, recipe)
    if pixels.ndim == 3 and pixels.shape[2] == 4 and (recipe.format == "jpeg" or recipe.color == "gray"):
        pixels = flatten(pixels, recipe.background_rgb)
    pixels = to_gray(pixels) if recipe.color == "gray" else to_rgb(pixels)
    return _pad(pixels, geometry, recipe) if geometry.pads else pixels


def _place(decoded: Decoded, geometry: Geometry, recipe: Recipe) -> Pixels:
    """Return the picture upright, resized and cropped."""
    width, height = _stored_size(geometry, decoded.orientation)
    shrinks = width <= decoded.pixels.shape[1] and height <= decoded.pixels.shape[0]
    # All filters but `nearest` are symmetric, so turn the picture when it has the fewest pixels.
    if recipe.filter == "nearest" or not shrinks:
        decoded = replace(decoded, pixels=apply_orientation(decoded.pixels, decoded.orientation), orientation=1)
    return apply_orientation(_resize_and_crop(decoded, geometry, recipe.filter), decoded.orientation)


def _resize_and_crop(decoded: Decoded, geometry: Geometry, method: Filter) -> Pixels:
    """Return pixels resized and cropped, but not turned; `geometry` is for the upright picture."""
    size = _stored_size(geometry, decoded.orientation)
    if not geometry.crops:
        return resize(decoded.pixels, *size, method, decoded.extent)
    upright = (-geometry.left, -geometry.top, geometry.width, geometry.height)
    crop = stored_rectangle(upright, (geometry.resized_width, geometry.resized_height), decoded.orientation)
    return resize_and_crop(decoded.pixels, size, crop, method, decoded.extent)


def _pad(pixels: Pixels, geometry: Geometry, recipe: Recipe) -> Pixels:
    color = np.array(recipe.background_rgb, np.uint8).reshape(1, 1, 3)
    fill = to_gray(color).item() if pixels.ndim == 2 else (*recipe.background_rgb, 255)
    right = geometry.width - geometry.resized_width - geometry.left
    bottom = geometry.height - geometry.resized_height - geometry.top
    sides = (max(geometry.top, 0), max(bottom, 0), max(geometry.left, 0), max(right, 0))
    return cv2.copyMakeBorder(pixels, *sides, cv2.BORDER_CONSTANT, value=fill)  # type: ignore[return-value]
