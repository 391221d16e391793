"""Colour: embedded profiles to sRGB, CMYK to RGB, transparency onto a background, gray."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image, ImageCms

if TYPE_CHECKING:
    from tasks.imaging.facts import Pixels

CACHED_PROFILE_BYTES = 1 << 16
"""Larger profiles are looked at anew each time, so that the cache stays small."""

IDENTITY_TOLERANCE = 3
"""Levels of 255 by which a profile may differ from sRGB and still be taken for one of its many variants."""

INPUT_SPACES = {"L": "GRAY", "RGB": "RGB ", "CMYK": "CMYK"}


class ProfileError(Exception):
    """An embedded profile can't be used for the pixels that it came with; says with which warning word."""


def to_srgb(pixels: Pixels, profile: bytes | None, warnings: list[str]) -> Pixels:
    """Convert gray or RGB pixels from an embedded ICC profile to sRGB; the last axis may carry alpha.

    A profile that can't be used adds `icc_invalid` or `icc_ignored` to `warnings` and changes nothing.
    """
    if profile is None:
        return pixels
    mode = "L" if pixels.ndim == 2 else "RGB"
    try:
        conversion = _conversion(profile, mode)
    except ProfileError as error:
        warnings.append(str(error))
        return pixels
    if conversion is None:
        return pixels
    if mode == "L":
        # A gray profile maps each level to a neutral colour: one table does for all channels.
        return cv2.LUT(pixels, _apply(conversion, _gray_ramp(), mode)[:, :, 0])  # type: ignore[return-value]
    converted = _apply(conversion, np.ascontiguousarray(pixels[:, :, :3]), mode)
    return np.dstack((converted, pixels[:, :, 3])) if pixels.shape[2] == 4 else converted


def cmyk_to_rgb(pixels: Pixels, profile: bytes | None, warnings: list[str]) -> Pixels:
    """Convert (height, width, 4) CMYK, 255 = full ink, to RGB: by its profile, or plainly without one."""
    if profile is not None:
        try:
            conversion = _conversion(profile, "CMYK")
        except ProfileError as error:
            warnings.append(str(error))
        else:
            return _apply(conversion, pixels, "CMYK") if conversion else _plain_cmyk(pixels)
    return _plain_cmyk(pixels)


def _plain_cmyk(pixels: Pixels) -> Pixels:
    return np.array(_to_image(pixels, "CMYK").convert("RGB"))


def _conversion(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    if len(profile) > CACHED_PROFILE_BYTES:
        conversion = _build_conversion(profile, mode)
    else:
        conversion = _cached_conversion(profile, mode)
    if isinstance(conversion, str):
        raise ProfileError(conversion)
    return conversion


def _build_conversion(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | str | None:
    """Return how to get from a profile to sRGB: None if it is sRGB, a warning word if it can't be done."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space != INPUT_SPACES[mode]:
            return "icc_ignored"
        conversion = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return "icc_invalid"
    return None if mode != "CMYK" and _is_identity(conversion, mode) else conversion


_cached_conversion = lru_cache(maxsize=64)(_build_conversion)


def _is_identity(conversion: ImageCms.ImageCmsTransform, mode: str) -> bool:
    # Looking at what it does to colours recognises sRGB under any name and in any encoding.
    probe = _gray_ramp() if mode == "L" else _color_lattice()
    result = _apply(conversion, probe, mode).astype(np.int16)
    expected = probe[:, :, None] if mode == "L" else probe
    return bool(np.abs(result - expected).max() <= IDENTITY_TOLERANCE)


def _gray_ramp() -> Pixels:
    return np.arange(256, dtype=np.uint8).reshape(1, 256)


def _color_lattice() -> Pixels:
    steps = np.linspace(0, 255, 17).astype(np.uint8)
    return np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(17, -1, 3)


def _apply(conversion: ImageCms.ImageCmsTransform, pixels: Pixels, mode: str) -> Pixels:
    return np.array(conversion.apply(_to_image(pixels, mode)))


def _to_image(pixels: Pixels, mode: str) -> Image.Image:
    size = pixels.shape[1], pixels.shape[0]
    return Image.frombuffer(mode, size, np.ascontiguousarray(pixels), "raw", mode, 0, 1)


def flatten(pixels: Pixels, background: tuple[int, int, int]) -> Pixels:
    """Lay (height, width, 4) pixels with straight alpha on a background; returns (height, width, 3)."""
    alpha = pixels[:, :, 3:].astype(np.uint32)
    mixed = pixels[:, :, :3] * alpha + np.array(background, np.uint32) * (255 - alpha)
    return ((mixed + 127) // 255).astype(np.uint8)


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
