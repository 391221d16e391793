"""Convert RGB to sRGB by an ICC profile of three curves and a matrix, ten times as fast as littleCMS.

Most embedded profiles are of this kind (ICC.1:2022, section F.3). A table for each channel makes samples linear, the
matrix converts them to linear sRGB, and a table encodes them. `color.py` uses this if it agrees with littleCMS.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ImageCms

from darkroom.tasks.imaging.bands import Pixels

LEVELS = 1 << 16
"""Levels of linear light: near black, 20 of them are one of the 256 levels of sRGB."""

MAX_TAGS = 200
CHANNELS = (b"r", b"g", b"b")

PARAMETERS = ("g", "gab", "gabc", "gabcd", "gabcdef")
"""Parameters of each kind of parametric curve: (ax + b)^g + e from d on, cx + f below (ICC.1:2022, table 68)."""


@dataclass(frozen=True, slots=True)
class MatrixConversion:
    """A conversion from the RGB of one profile to sRGB."""

    linear: np.ndarray
    """Linear light of each sample: (1, 256, 3), uint16."""

    matrix: np.ndarray
    """From linear RGB of the profile to linear sRGB: (3, 3), float32."""

    def apply(self, pixels: Pixels) -> Pixels:
        """Return (height, width, 3) pixels in sRGB."""
        light = cv2.transform(cv2.LUT(pixels, self.linear), self.matrix)
        return cv2.LUT(light, _srgb_of_light())  # type: ignore[return-value]


def read_matrix_conversion(profile: bytes) -> MatrixConversion | None:
    """Return the conversion by a profile's curves and matrix; None if it lacks them, or has tables of colours.

    Raises:
        struct.error, ValueError, ArithmeticError: the profile is damaged.
    """
    tags = read_tags(profile)
    names = [channel + kind for kind in (b"TRC", b"XYZ") for channel in CHANNELS]
    if any(kind[:3] in (b"A2B", b"D2B") for kind in tags) or not all(name in tags for name in names):
        return None
    steps = np.linspace(0, 1, 256)
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        curves = [_curve(tags[channel + b"TRC"], steps) for channel in CHANNELS]
    if any(curve is None for curve in curves):
        return None
    light = np.stack([np.clip(curve, 0, 1) for curve in curves if curve is not None], axis=-1)
    matrix = np.linalg.solve(_srgb_to_xyz(), _matrix(tags))
    linear = np.rint(light * (LEVELS - 1)).astype(np.uint16).reshape(1, 256, 3)
    return MatrixConversion(linear, matrix.astype(np.float32))


def read_tags(profile: bytes) -> dict[bytes, bytes]:
    """Return a profile's tags by signature; raises `struct.error` if its table of tags is cut off."""
    return {kind: profile[start : start + length] for kind, start, length in walk_tags(profile)}


def walk_tags(profile: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield signature, position and length of each tag; raises `struct.error` if the table of tags is cut off."""
    (count,) = struct.unpack_from(">I", profile, 128)
    for tag in range(min(count, MAX_TAGS)):
        yield struct.unpack_from(">4sII", profile, 132 + 12 * tag)


def _curve(tag: bytes, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
    """Return the values of a tone curve at `x`, 0 to 1; None if its kind is unknown."""
    if tag[:4] == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        points: np.ndarray = np.frombuffer(tag, ">u2", count, 12).astype(float)
        if count < 2:
            return np.asarray(x ** (points[0] / 256 if count else 1.0))
        return np.asarray(np.interp(x, np.linspace(0, 1, count), points / 65535))
    if tag[:4] != b"para":
        return None
    (kind,) = struct.unpack_from(">H", tag, 8)
    if kind >= len(PARAMETERS):
        return None
    given = dict(zip(PARAMETERS[kind], _fixed(tag[12 : 12 + 4 * len(PARAMETERS[kind])]), strict=True))
    g, a, b, c, d, e, f = (given.get(name, 1.0 if name == "a" else 0.0) for name in "gabcdef")
    if kind in {1, 2}:
        d = -b / a
    if kind == 2:
        e = f = given["c"]
        c = 0.0
    return np.asarray(np.where(x >= d, np.maximum(a * x + b, 0) ** g + e, c * x + f))


def _fixed(data: bytes) -> list[float]:
    """Return fixed-point numbers of 16.16 bits as floats."""
    return [number / 65536 for number in struct.unpack(f">{len(data) // 4}i", data)]


@cache
def _srgb_to_xyz() -> np.ndarray:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return _matrix(read_tags(profile))


def _matrix(tags: dict[bytes, bytes]) -> np.ndarray:
    """Return the (3, 3) matrix from linear RGB to XYZ of the profile connection space."""
    return np.array([_fixed(tags[channel + b"XYZ"][8:20]) for channel in CHANNELS]).T


@cache
def _srgb_of_light() -> np.ndarray:
    """Return (1, `LEVELS`) uint8: the level of sRGB for each level of linear light (IEC 61966-2-1)."""
    light = np.linspace(0, 1, LEVELS)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(encoded * 255), np.uint8).reshape(1, LEVELS)
