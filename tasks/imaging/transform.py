"""Bytes in, bytes and facts out: the one function that everything else here is for."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

import cv2
import numpy as np

from darkroom.tasks.errors import ErrorCode, ImageError
from darkroom.tasks.imaging.bands import bands
from darkroom.tasks.imaging.color import flatten, to_gray, to_rgb
from darkroom.tasks.imaging.encode import encode, refuse_oversized, visible_channels
from darkroom.tasks.imaging.exif import apply_orientation
from darkroom.tasks.imaging.facts import Transformed, unlimited
from darkroom.tasks.imaging.failures import translate, translate_encoding
from darkroom.tasks.imaging.general import decode_image, open_image
from darkroom.tasks.imaging.geometry import plan_geometry
from darkroom.tasks.imaging.jpeg import decode_jpeg
from darkroom.tasks.imaging.jpeg_header import read_header
from darkroom.tasks.imaging.limits import refuse_too_many_pixels
from darkroom.tasks.imaging.readers import READERS
from darkroom.tasks.imaging.resample import resize, resize_and_crop
from darkroom.tasks.imaging.sniff import SNIFFED_BYTES, sniff_format

if TYPE_CHECKING:
    from darkroom.tasks.imaging.facts import Allow, Decoded, Pixels, SourceFacts
    from darkroom.tasks.imaging.geometry import Geometry
    from darkroom.tasks.settings import Recipe


def transform(data: bytes | memoryview, recipe: Recipe, max_pixels: int, allow: Allow = unlimited) -> Transformed:
    """Turn an image file into an output file as the recipe says.

    The same bytes and recipe give the same output bytes. Transparency is flattened on the recipe's
    background for JPEG and for gray outputs, and kept otherwise; padding is opaque.

    Raises `ImageError`, and nothing else for any bytes: `source.empty`, one of the `decode` codes, or
    `encode.failed`. `max_pixels` limits the source, by its header and before anything is decoded, and what
    `fit="outside"` may enlarge it to. `allow` is called once the header was read.
    """
    started = perf_counter()
    image_format = recognise(data)
    if image_format == "jpeg":
        facts, geometry, decoded = _decode_jpeg(data, recipe, max_pixels, allow)
    else:
        facts, geometry, decoded = _decode_general(image_format, bytes(data), recipe, max_pixels, allow)
    warnings = tuple(sorted(set(decoded.warnings)))
    decoded_at = perf_counter()
    try:
        pixels = _compose(decoded, geometry, recipe)
        del decoded  # its pixels would be held while the others are encoded
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


def recognise(data: bytes | memoryview) -> str:
    """Return the format of an image file that can be read here; raises `ImageError`."""
    if not data:
        raise ImageError(ErrorCode.SOURCE_EMPTY, "the file is empty")
    image_format = sniff_format(bytes(data[:SNIFFED_BYTES]))
    if image_format is None:
        raise ImageError(ErrorCode.DECODE_UNKNOWN_FORMAT, "not an image of any known format")
    if image_format != "jpeg" and image_format not in READERS:
        raise ImageError(ErrorCode.DECODE_UNSUPPORTED, f"{image_format} is not among the formats read here")
    return image_format


def _decode_jpeg(
    data: bytes | memoryview, recipe: Recipe, max_pixels: int, allow: Allow
) -> tuple[SourceFacts, Geometry, Decoded]:
    header = read_header(data)
    facts = header.facts
    try:
        geometry = _plan(facts, recipe, max_pixels, allow)
        # Nearest takes pixels as they are; a reduced picture has only averages.
        needed = (
            (facts.width, facts.height) if recipe.filter == "nearest" else _stored_size(geometry, facts.orientation)
        )
        decoded = decode_jpeg(
            data,
            header,
            needed,
            gray=recipe.color == "gray",
            keep_truncated=recipe.truncated == "keep",
        )
        _refuse_empty_remainder(decoded)
    except Exception as error:
        raise translate(error, facts, ends_early=bytes(data).find(b"\xff\xd9", header.scan) < 0) from error
    return facts, geometry, decoded


def _decode_general(
    image_format: str, data: bytes, recipe: Recipe, max_pixels: int, allow: Allow
) -> tuple[SourceFacts, Geometry, Decoded]:
    opened = open_image(image_format, data, max_pixels, allow)
    try:
        geometry = _plan(opened.facts, recipe, max_pixels, allow)
        decoded = decode_image(opened, keep_truncated=recipe.truncated == "keep")
        _refuse_empty_remainder(decoded)
    except Exception as error:
        raise translate(error, opened.facts) from error
    return opened.facts, geometry, decoded


def _refuse_empty_remainder(decoded: Decoded) -> None:
    # Of a file cut before its first pixels a decoder returns one colour; that is nothing to keep.
    pixels = decoded.pixels
    if "truncated" in decoded.warnings and all(
        (pixels[rows] == pixels[0, 0]).all() for rows in bands(*pixels.shape[:2])
    ):
        raise ImageError(ErrorCode.DECODE_TRUNCATED, "the file ends before any of its pixels")


def _plan(facts: SourceFacts, recipe: Recipe, max_pixels: int, allow: Allow) -> Geometry:
    refuse_too_many_pixels(facts, max_pixels)
    geometry = plan_geometry(*facts.oriented_size, recipe)
    refuse_oversized(geometry, recipe.format, max_pixels)
    allow(max(facts.width * facts.height, geometry.width * geometry.height))
    return geometry


def _stored_size(geometry: Geometry, orientation: int) -> tuple[int, int]:
    size = geometry.resized_width, geometry.resized_height
    return size[::-1] if orientation >= 5 else size


def _compose(decoded: Decoded, geometry: Geometry, recipe: Recipe) -> Pixels:
    pixels = _place(decoded, geometry, recipe)
    if pixels.ndim == 3 and pixels.shape[2] == 4 and (recipe.format == "jpeg" or recipe.color == "gray"):
        pixels = flatten(pixels, recipe.background_rgb)
    pixels = to_gray(pixels) if recipe.color == "gray" else to_rgb(pixels)
    return _pad(pixels, geometry, recipe) if geometry.pads else pixels


def _place(decoded: Decoded, geometry: Geometry, recipe: Recipe) -> Pixels:
    pixels, orientation = decoded.pixels, decoded.orientation
    width, height = _stored_size(geometry, orientation)
    shrinks = width <= pixels.shape[1] and height <= pixels.shape[0]
    if shrinks and not geometry.crops and recipe.filter != "nearest":
        # Turning the smaller picture is cheaper, and the filters are symmetric.
        return apply_orientation(resize(pixels, width, height, recipe.filter), orientation)
    pixels = apply_orientation(pixels, orientation)
    if geometry.crops:
        return resize_and_crop(pixels, geometry, recipe.filter)
    return resize(pixels, geometry.resized_width, geometry.resized_height, recipe.filter)


def _pad(pixels: Pixels, geometry: Geometry, recipe: Recipe) -> Pixels:
    color = np.array(recipe.background_rgb, np.uint8).reshape(1, 1, 3)
    fill = to_gray(color).item() if pixels.ndim == 2 else (*recipe.background_rgb, 255)
    right = geometry.width - geometry.resized_width - geometry.left
    bottom = geometry.height - geometry.resized_height - geometry.top
    sides = (max(geometry.top, 0), max(bottom, 0), max(geometry.left, 0), max(right, 0))
    return cv2.copyMakeBorder(pixels, *sides, cv2.BORDER_CONSTANT, value=fill)  # type: ignore[return-value]
