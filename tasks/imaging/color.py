"""Convert pixels: embedded profiles to sRGB, CMYK to RGB, 16 bits to 8, transparency onto a background, gray."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from functools import cache, lru_cache

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from darkroom.tasks.imaging.bands import Pixels, Samples, bands
from darkroom.tasks.imaging.failures import unsupported
from darkroom.tasks.imaging.matrix_profile import MatrixConversion, read_matrix_conversion, walk_tags

CACHED_PROFILE_BYTES = 1 << 16
"""Conversions of larger profiles are not cached."""

IDENTITY_TOLERANCE = 3
"""A profile whose colours differ from sRGB's by at most this many levels of 255 is treated as sRGB."""

MAX_STAGES, MAX_CURVE_BYTES = 16, 4096
"""Upper limits on a profile's floating-point stages; most real profiles have none."""

MATRIX_TOLERANCE = 1
"""Levels of 255 by which a `MatrixConversion` may differ from littleCMS's conversion."""

Conversion = ImageCms.ImageCmsTransform | MatrixConversion

INPUT_SPACES = {"L": "GRAY", "RGB": "RGB ", "CMYK": "CMYK"}


def to_srgb(pixels: Pixels, profile: bytes | None, warnings: list[str]) -> Pixels:
    """Return pixels, (height, width) gray, or RGB with or without alpha, converted from an ICC profile to sRGB.

    An unusable profile changes nothing, and adds `icc_invalid` or `icc_ignored` to `warnings`.
    """
    mode = "L" if pixels.ndim == 2 else "RGB"
    conversion = _conversion(profile, mode, warnings)
    if conversion is None:
        return pixels
    if mode == "L":
        # A gray profile maps each level to a neutral colour, so the table of one channel is enough.
        return cv2.LUT(pixels, _apply(conversion, _gray_ramp(), mode)[:, :, 0])  # type: ignore[return-value]
    converted = pixels if pixels.flags.writeable else pixels.copy()
    for rows in bands(*pixels.shape[:2]):
        converted[rows, :, :3] = _apply(conversion, pixels[rows, :, :3], mode)
    return converted


def cmyk_to_rgb(pixels: Pixels, profile: bytes | None, warnings: list[str]) -> Pixels:
    """Return (height, width, 4) CMYK, where 255 is full ink, as RGB: by its profile, else by Pillow's formula."""
    conversion = _conversion(profile, "CMYK", warnings)
    if conversion is not None:
        return _each_band(pixels, lambda band: _apply(conversion, band, "CMYK"))
    return _each_band(pixels, lambda band: np.asarray(_to_image(band, "CMYK").convert("RGB")))


def _each_band(pixels: Pixels, convert: Callable[[Pixels], Pixels]) -> Pixels:
    converted = np.empty((*pixels.shape[:2], 3), np.uint8)
    for rows in bands(*pixels.shape[:2]):
        converted[rows] = convert(pixels[rows])
    return converted


def _conversion(profile: bytes | None, mode: str, warnings: list[str]) -> Conversion | None:
    if profile is None:
        return None
    build = _build_conversion if len(profile) > CACHED_PROFILE_BYTES else _cached_conversion
    conversion = build(profile, mode)
    if isinstance(conversion, str):
        warnings.append(conversion)
        return None
    return conversion


def _build_conversion(profile: bytes, mode: str) -> Conversion | str | None:
    """Return the conversion from a profile to sRGB; None if it is sRGB, a warning's code if it is unusable."""
    try:
        if _is_costly(profile):
            return "icc_invalid"
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space != INPUT_SPACES[mode]:
            return "icc_ignored"
        conversion = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, struct.error):
        return "icc_invalid"
    if mode == "CMYK":
        return conversion
    probe = _gray_ramp() if mode == "L" else _color_lattice()
    converted = _apply(conversion, probe, mode)
    # Compare colours, not profiles: sRGB has many names and encodings.
    if _differ(converted, probe if mode == "RGB" else probe[:, :, None]) <= IDENTITY_TOLERANCE:
        return None
    matrix = _matrix_conversion(profile) if mode == "RGB" else None
    return matrix if matrix and _differ(converted, matrix.apply(probe)) <= MATRIX_TOLERANCE else conversion


def _matrix_conversion(profile: bytes) -> MatrixConversion | None:
    try:
        return read_matrix_conversion(profile)
    except (ArithmeticError, ValueError, struct.error):  # littleCMS may accept it nevertheless
        return None


def _is_costly(profile: bytes) -> bool:
    """Return whether a profile has so many floating-point stages or curves that each pixel would take long."""
    for kind, start, length in walk_tags(profile):
        if kind[:3] == b"D2B" and len(profile) >= start + 16:
            (stages,) = struct.unpack_from(">I", profile, start + 12)
            content = profile[start : start + length]
            if stages > MAX_STAGES or (len(content) > MAX_CURVE_BYTES and b"cvst" in content):
                return True
    return False


_cached_conversion = lru_cache(maxsize=64)(_build_conversion)


def _differ(one: Pixels, other: Pixels) -> int:
    """Return the greatest difference between two pictures, in levels of 255."""
    return int(np.abs(one.astype(np.int16) - other).max())


def _color_lattice() -> Pixels:
    steps = np.linspace(0, 255, 17).astype(np.uint8)
    return np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(17, -1, 3)


def _gray_ramp() -> Pixels:
    return np.arange(256, dtype=np.uint8).reshape(1, 256)


def _apply(conversion: Conversion, pixels: Pixels, mode: str) -> Pixels:
    if isinstance(conversion, MatrixConversion):
        return conversion.apply(pixels)
    return np.array(conversion.apply(_to_image(pixels, mode)))


def _to_image(pixels: Pixels, mode: str) -> Image.Image:
    size = pixels.shape[1], pixels.shape[0]
    return Image.frombuffer(mode, size, np.ascontiguousarray(pixels), "raw", mode, 0, 1)


def flatten(pixels: Pixels, background: tuple[int, int, int]) -> Pixels:
    """Return (height, width, 3) pixels: RGB with straight alpha, (height, width, 4), composited on a background."""

    def mix(band: Pixels) -> Pixels:
        alpha = band[:, :, 3:].astype(np.uint32)
        mixed = band[:, :, :3] * alpha + np.array(background, np.uint32) * (255 - alpha)
        return ((mixed + 127) // 255).astype(np.uint8)

    return _each_band(pixels, mix)


def scale_16_bits(samples: Samples, white: int = 65535) -> Pixels:
    """Return samples of up to 16 bits scaled to 8 bits and rounded; `white` becomes 255."""
    scaled = np.empty(samples.shape, np.uint8)
    for rows in bands(*samples.shape[:2]):
        scaled[rows] = cv2.convertScaleAbs(samples[rows].astype(np.uint16, copy=False), alpha=255 / white)
    return scaled


def round_16_bits(data: bytes, pixels: Pixels, find_white: Callable[[Samples], int] | None = None) -> Pixels:
    """Return the colours of a file with 16-bit samples rounded to 8 bits; Pillow cut them to `pixels`.

    OpenCV decodes all 16 bits, and makes alpha of a transparent colour. Its pixels are used only if they equal Pillow's
    except for rounding; otherwise `pixels` is returned.

    Args:
        data: the file.
        pixels: its pixels as Pillow decoded them.
        find_white: returns the value of the samples that becomes 255; None: 65,535.

    Raises:
        ImageError: `decode.unsupported`, if white is less than 65,535 and OpenCV's pixels can't be used.
    """
    decoded: Samples | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    rounded = None if decoded is None else _verified(decoded, pixels)
    samples = pixels.astype(np.uint16) * 257 if rounded is None or decoded is None else decoded
    white = find_white(samples) if find_white else 65535
    if rounded is None and white != 65535:
        raise unsupported(f"16-bit colours whose white is {white:,} can't be read here")
    if rounded is None or decoded is None:
        return pixels
    return rounded if white == 65535 else scale_16_bits(decoded[:, :, ::-1], white)


def _verified(decoded: Samples, pixels: Pixels) -> Pixels | None:
    """Return OpenCV's 16-bit samples as RGB or RGBA of 8 bits; None if they differ from `pixels` by more than 1."""
    height, width, *others = decoded.shape
    channels = others[0] if others else 1
    if decoded.dtype != np.uint16 or (height, width) != pixels.shape[:2] or channels not in {3, 4}:
        return None
    colors = pixels.shape[2]
    to_rgb_order = cv2.COLOR_BGR2RGB if channels == 3 else cv2.COLOR_BGRA2RGBA
    rounded = np.empty((height, width, channels), np.uint8)
    for rows in bands(height, width):
        rounded[rows] = cv2.cvtColor(scale_16_bits(decoded[rows]), to_rgb_order)
        if channels < colors or cv2.absdiff(rounded[rows, :, :colors], pixels[rows]).max() > 1:
            return None
    return rounded


def with_alpha(pixels: Pixels, opaque: npt.NDArray[np.bool_]) -> Pixels:
    """Return gray or RGB pixels as (height, width, 4), with an alpha of 255 where `opaque` is true, else 0."""
    return np.dstack((to_rgb(pixels), np.where(opaque, np.uint8(255), np.uint8(0))))


def without_empty_alpha(pixels: Pixels, warnings: list[str]) -> Pixels:
    """Return pixels without alpha if it is 0 everywhere, and add `alpha_ignored` to `warnings`; else unchanged.

    Programs without support for alpha write such files, and viewers show them opaque.
    """
    if pixels.ndim == 2 or pixels.shape[2] < 4 or pixels[:, :, 3].any():
        return pixels
    warnings.append("alpha_ignored")
    return np.ascontiguousarray(pixels[:, :, :3])


LOW_RANGE = 1 << 14
"""A quarter of the range of 16-bit samples."""


def warn_of_low_range(samples: Samples, warnings: list[str]) -> None:
    """Add `low_range` to `warnings` if all 16-bit samples are below `LOW_RANGE`, as those of 12-bit cameras are."""
    if 0 < samples.max() < LOW_RANGE:
        warnings.append("low_range")


def lab_to_rgb(image: Image.Image) -> Image.Image:
    """Return an image converted from CIELab to sRGB."""
    return _lab_conversion().apply(image)


@cache
def _lab_conversion() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")


def to_gray(pixels: Pixels) -> Pixels:
    """Return (height, width) luma (BT.601) of RGB pixels; gray ones unchanged."""
    if pixels.ndim == 2:
        return pixels
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)  # type: ignore[return-value]


def to_rgb(pixels: Pixels) -> Pixels:
    """Return gray pixels as (height, width, 3); others unchanged."""
    if pixels.ndim == 3:
        return pixels
    return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)  # type: ignore[return-value]
