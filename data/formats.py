"""Encoders for the kinds of image files that real datasets contain, broken ones included."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import PurePosixPath

import cv2
import numpy as np
from PIL import Image

from data.photos import encoded

QUALITY = 90
EXIF_ORIENTATION = 0x0112

UPRIGHT_TO_STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}

ERROR_PAGE = b"<!DOCTYPE html>\n<title>404</title>\n<h1>Not Found</h1>\n<p>The image has moved.</p>\n"


def kind_by_suffix(path: str) -> str:
    """Return the kind of image that the suffix of `path` stands for."""
    suffix = PurePosixPath(path).suffix.lower().lstrip(".")
    return "jpeg" if suffix == "jpg" else suffix


_jpeg = partial(encoded, file_format="JPEG", quality=QUALITY)
_png = partial(encoded, file_format="PNG")
_webp = partial(encoded, file_format="WEBP", quality=QUALITY)


def stored(upright: Image.Image, orientation: int) -> Image.Image:
    """Return the picture as a camera held in this EXIF orientation stores it."""
    turn = UPRIGHT_TO_STORED.get(orientation)
    return upright if turn is None else upright.transpose(turn)


def oriented_jpeg(upright: Image.Image, orientation: int) -> bytes:
    """Encode the picture as a camera held in this EXIF orientation stores it, with the tag."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    return _jpeg(stored(upright, orientation), exif=exif)


def _png_of_16_bits(image: Image.Image) -> bytes:
    deep = np.asarray(image)[..., ::-1].astype(np.uint16) * 257
    return bytes(cv2.imencode(".png", deep)[1])


def _with_alpha(image: Image.Image) -> Image.Image:
    """Return the picture fading from transparent at the left to opaque at the right."""
    faded = image.copy()
    faded.putalpha(Image.linear_gradient("L").rotate(90).resize(image.size))
    return faded


def _animated_gif(image: Image.Image) -> bytes:
    palette = image.quantize(64)
    frames = [palette.transform(image.size, Image.Transform.AFFINE, (1, 0, 8 * n, 0, 1, 0)) for n in range(6)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=80)


def _cut_short(image: Image.Image) -> bytes:
    whole = _jpeg(image)
    return whole[: len(whole) * 3 // 5]


ENCODERS: dict[str, Callable[[Image.Image], bytes]] = {
    "jpeg": _jpeg,
    "png": _png,
    "webp": _webp,
    "progressive jpeg": partial(_jpeg, progressive=True),
    "grey jpeg": lambda image: _jpeg(image.convert("L")),
    "grey png": lambda image: _png(image.convert("L")),
    "cmyk jpeg": lambda image: _jpeg(image.convert("CMYK")),
    "16-bit png": _png_of_16_bits,
    "rgba png": lambda image: _png(_with_alpha(image)),
    "rgba webp": lambda image: _webp(_with_alpha(image)),
    "palette png": lambda image: _png(image.quantize(64)),
    "animated gif": _animated_gif,
    "cut short": _cut_short,
    "error page": lambda _: ERROR_PAGE,
    "empty": lambda _: b"",
}
"""Every kind of file in the sample dataset, and how a picture becomes one."""
