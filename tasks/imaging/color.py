"""Colour: embedded profiles to sRGB, CMYK to RGB, 16 bits to 8, transparency onto a background, gray."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from functools import cache, lru_cache

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from darkroom.tasks.errors import ErrorCode, ImageError
from darkroom.tasks.imaging.bands import Pixels, Samples, bands
from darkroom.tasks.imaging.matrix_profile import MatrixConversion, read_matrix_conversion, walk_tags

CACHED_PROFILE_BYTES = 1 << 16
"""Larger profiles are not cached."""

IDENTITY_TOLERANCE = 3
"""A profile that differs from sRGB by no more than this many levels of 255 is one of its many variants."""

MAX_STAGES, MAX_CURVE_BYTES = 16, 4096
"""Limits on a profile's tables. Real profiles have at most a few stages, and most have none."""

MATRIX_TOLERANCE = 1
"""By how many levels of 255 a conversion by matrix may differ from littleCMS's."""

Conversion = ImageCms.ImageCmsTransform | MatrixConversion

INPUT_SPACES = {"L": "GRAY", "RGB": "RGB ", "CMYK": "CMYK"}


def to_srgb(pixels: Pixels, profile: bytes | None, warnings: list[str]) -> Pixels:
    """Convert gray or RGB pixels from an embedded ICC profile to sRGB; the last axis may carry alpha.

    A profile that can't be used adds `icc_invalid` or `icc_ignored` to `warnings` and changes nothing.
    """
    mode = "L" if pixels.ndim == 2 else "RGB"
    conversion = _conversion(profile, mode, warnings)
    if conversion is None:
        return pixels
    if mode == "L":
        # A gray profile maps each level to a neutral colour, so one table serves all channels.
        return cv2.LUT(pixels, _apply(conversion, _gray_ramp(), mode)[:, :, 0])  # type: ignore[return-value]
    converted = pixels if pixels.flags.writeable else pixels.copy()
    for rows in bands(*pixels.shape[:2]):
        converted[rows, :, :3] = _apply(conversion, pixels[rows, :, :3], mode)
    return converted


def cmyk_to_rgb(pixels: Pixels, profile: bytes | None, warnings: list[str]) -> Pixels:
    """Convert (height, width, 4) CMYK, 255 = full ink, to RGB: by its profile, or by Pillow's formula without one."""
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
    """Return the conversion from a profile to sRGB; None if it is sRGB, the warning to record if it is unusable."""
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
    # Comparing the resulting colours recognises sRGB under any name and in any encoding.
    if _differ(converted, probe if mode == "RGB" else probe[:, :, None]) <= IDENTITY_TOLERANCE:
        return None
    matrix = _matrix_conversion(profile) if mode == "RGB" else None
    return matrix if matrix and _differ(converted, matrix.apply(probe)) <= MATRIX_TOLERANCE else conversion


def _matrix_conversion(profile: bytes) -> MatrixConversion | None:
    try:
        return read_matrix_conversion(profile)
    except (ArithmeticError, ValueError, struct.error):  # littleCMS may still make something of it
        return None


def _is_costly(profile: bytes) -> bool:
    """Return whether a profile has many floating-point stages or curves, which every pixel would pass through."""
    for kind, start, length in walk_tags(profile):
        if kind[:3] == b"D2B" and len(profile) >= start + 16:
            (stages,) = struct.unpack_from(">I", profile, start + 12)
            content = profile[start : start + length]
            if stages > MAX_STAGES or (len(content) > MAX_CURVE_BYTES and b"cvst" in content):
                return True
    return False


_cached_conversion = lru_cache(maxsize=64)(_build_conversion)


def _differ(one: Pixels, other: Pixels) -> int:
    """Return by how many levels two pictures differ at most."""
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
    """Return (height, width, 4) pixels with straight alpha laid on a background, as (height, width, 3)."""

    def mix(band: Pixels) -> Pixels:
        alpha = band[:, :, 3:].astype(np.uint32)
        mixed = band[:, :, :3] * alpha + np.array(background, np.uint32) * (255 - alpha)
        return ((mixed + 127) // 255).astype(np.uint8)

    return _each_band(pixels, mix)


def scale_16_bits(samples: Samples, white: int = 65535) -> Pixels:
    """Return samples of up to 16 bits as ones of 8 bits, rounded; `white` becomes 255."""
    scaled = np.empty(samples.shape, np.uint8)
    for rows in bands(*samples.shape[:2]):
        scaled[rows] = cv2.convertScaleAbs(samples[rows].astype(np.uint16, copy=False), alpha=255 / white)
    return scaled


def round_16_bits(data: bytes, pixels: Pixels, find_white: Callable[[Samples], int] | None = None) -> Pixels:
    """Return the colours of a file whose samples have 16 bits, of which Pillow kept the upper 8, rounded.

    OpenCV keeps all 16, and makes alpha of a transparent colour. Its pixels are used only if they are those of Pillow
    but for rounding. `find_white` returns which value of the samples becomes 255; it is 65535 without. Raises
    `decode.unsupported` if it is less and OpenCV can't read the file.
    """
    decoded: Samples | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    rounded = None if decoded is None else _verified(decoded, pixels)
    samples = pixels.astype(np.uint16) * 257 if rounded is None or decoded is None else decoded
    white = find_white(samples) if find_white else 65535
    if rounded is None and white != 65535:
        raise ImageError(ErrorCode.DECODE_UNSUPPORTED, f"16-bit colours whose white is {white} can't be read here")
    if rounded is None or decoded is None:
        return pixels
    return rounded if white == 65535 else scale_16_bits(decoded[:, :, ::-1], white)


def _verified(decoded: Samples, pixels: Pixels) -> Pixels | None:
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
    """Return (height, width, 4) pixels for gray or RGB ones, with alpha 255 where `opaque` is true and else 0."""
    return np.dstack((to_rgb(pixels), np.where(opaque, np.uint8(255), np.uint8(0))))


def without_empty_alpha(pixels: Pixels, warnings: list[str]) -> Pixels:
    """Return pixels whose alpha is 0 everywhere without it, and add `alpha_ignored`; others come back as they are.

    Programs that do not know of alpha write such files, and others show them opaque.
    """
    if pixels.ndim == 2 or pixels.shape[2] < 4 or pixels[:, :, 3].any():
        return pixels
    warnings.append("alpha_ignored")
    return np.ascontiguousarray(pixels[:, :, :3])


LOW_RANGE = 1 << 14
"""16-bit samples that are all below this use less than a quarter of their range."""


def warn_of_low_range(samples: Samples, warnings: list[str]) -> None:
    """Add `low_range` to `warnings` if 16-bit samples hardly use their range, as ones of 12 bits in 16 do."""
    if 0 < samples.max() < LOW_RANGE:
        warnings.append("low_range")


def lab_to_rgb(image: Image.Image) -> Image.Image:
    """Return an image in CIELab as one in sRGB."""
    return _lab_conversion().apply(image)


@cache
def _lab_conversion() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")


def to_gray(pixels: Pixels) -> Pixels:
    """Return the (height, width) luma, BT.601, of RGB pixels; gray ones come back as they are."""
    if pixels.ndim == 2:
        return pixels
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)  # type: ignore[return-value]


def to_rgb(pixels: Pixels) -> Pixels:
    """Return (height, width, 3) for gray pixels; others come back as they are."""
    if pixels.ndim == 3:
        return pixels
    return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)  # type: ignore[return-value]
