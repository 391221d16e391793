"""The general lane: every other format through Pillow, brought to 8-bit sRGB without losing what it means."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    IcoImagePlugin,
    ImageFile,
    Jpeg2KImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from tasks.errors import ErrorCode, ImageError
from tasks.imaging.color import cmyk_to_rgb, to_srgb
from tasks.imaging.container import count_gif_frames, count_tiff_pages, declared_size, ends_early, png_exif
from tasks.imaging.exif import read_orientation
from tasks.imaging.facts import Decoded, SourceFacts
from tasks.imaging.failures import translate
from tasks.imaging.limits import refuse_too_many_pixels

if TYPE_CHECKING:
    from PIL import Image

    from tasks.imaging.facts import Pixels, Samples

READERS: dict[str, type[ImageFile.ImageFile]] = {
    "avif": AvifImagePlugin.AvifImageFile,
    "bmp": BmpImagePlugin.BmpImageFile,
    "gif": GifImagePlugin.GifImageFile,
    "ico": IcoImagePlugin.IcoImageFile,
    "jpeg2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
    "png": PngImagePlugin.PngImageFile,
    "ppm": PpmImagePlugin.PpmImageFile,
    "tiff": TiffImagePlugin.TiffImageFile,
    "webp": WebPImagePlugin.WebPImageFile,
}
"""The formats that are read. Each by its own reader: nothing else of Pillow ever sees a file."""

TIFF_WIDTH, TIFF_HEIGHT, TIFF_BITS, TIFF_PHOTOMETRIC, TIFF_ORIENTATION = 256, 257, 258, 262, 274
TIFF_STRIPS, TIFF_STRIP_BYTES = 273, 279
WHITE_IS_ZERO = 0
ALPHA_MODES = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})


@dataclass(frozen=True, slots=True)
class OpenedImage:
    """A file whose header was read, and what it said."""

    data: bytes
    image: ImageFile.ImageFile
    facts: SourceFacts
    warnings: tuple[str, ...]


def open_image(image_format: str, data: bytes, max_pixels: int) -> OpenedImage:
    """Read the header of a file in one of `READERS`' formats.

    Raises `ImageError`: `decode.too_many_pixels` before a decoder allocates anything, or whatever the header
    is refused for.
    """
    size = declared_size(image_format, data)
    facts = SourceFacts(image_format, "", *size) if size else None
    if facts:
        refuse_too_many_pixels(facts, max_pixels)
    try:
        image = READERS[image_format](io.BytesIO(data))
        opened = _describe(image_format, data, image)
    except Exception as error:
        raise translate(error, facts, ends_early(image_format, data)) from error
    refuse_too_many_pixels(opened.facts, max_pixels)
    return opened


def _describe(image_format: str, data: bytes, image: ImageFile.ImageFile) -> OpenedImage:
    width, height = image.size
    warnings: tuple[str, ...] = ()
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # Pillow turns a TIFF by itself, and reports the size that it will have then.
        width, height = image.tag_v2[TIFF_WIDTH], image.tag_v2[TIFF_HEIGHT]
        orientation = image.tag_v2.get(TIFF_ORIENTATION, 1)
        orientation = orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else None
    else:
        orientation = _exif_orientation(image_format, data, image)
    if orientation is None:
        warnings = ("exif_invalid",)
    frames = _count_frames(image_format, data, image)
    facts = SourceFacts(image_format, image.mode, width, height, orientation or 1, frames)
    return OpenedImage(data, image, facts, warnings)


def _exif_orientation(image_format: str, data: bytes, image: ImageFile.ImageFile) -> int | None:
    exif = image.info.get("exif") or (png_exif(data) if image_format == "png" else None)
    return read_orientation(exif) if exif else 1


def _count_frames(image_format: str, data: bytes, image: ImageFile.ImageFile) -> int:
    if image_format == "gif":
        return count_gif_frames(data)
    if image_format == "tiff":
        return count_tiff_pages(data)
    return int(getattr(image, "n_frames", 1)) if image_format in {"png", "webp", "avif"} else 1


def decode_image(opened: OpenedImage, *, keep_truncated: bool) -> Decoded:
    """Decode the first frame to gray, RGB or straight-alpha RGBA in sRGB.

    Of a file that ends early, what was decoded is kept if asked for; the rest is black, or transparent.
    """
    warnings = list(opened.warnings)
    image, orientation = _load(opened, warnings, keep_truncated=keep_truncated)
    facts = opened.facts
    expected = facts.oriented_size if orientation != facts.orientation else (facts.width, facts.height)
    if image.size != expected:
        message = f"header says {expected[0]} × {expected[1]} pixels, contents {image.size[0]} × {image.size[1]}"
        raise ImageError(ErrorCode.DECODE_CORRUPT, message, facts)
    profile = image.info.get("icc_profile") or None
    if image.mode == "CMYK":
        pixels = cmyk_to_rgb(np.array(image), profile, warnings)
    else:
        pixels = to_srgb(_to_pixels(image, opened), profile, warnings)
    return Decoded(pixels, orientation, tuple(warnings))


def _load(opened: OpenedImage, warnings: list[str], *, keep_truncated: bool) -> tuple[Image.Image, int]:
    image = opened.image
    try:
        image.load()
    except Exception as error:
        failure = translate(error, opened.facts, _ends_early(opened))
        if not keep_truncated or failure.code is not ErrorCode.DECODE_TRUNCATED or image._im is None:
            raise failure from error
        warnings.append("truncated")
        # Without its list of tiles Pillow takes the image, as far as it came, for a loaded one.
        image.tile = []
        return image.copy(), opened.facts.orientation
    # Pillow turns TIFFs by itself, and nothing else.
    return image, 1 if opened.facts.format == "tiff" else opened.facts.orientation


def _ends_early(opened: OpenedImage) -> bool:
    tags = getattr(opened.image, "tag_v2", {})
    ends = zip(tags.get(TIFF_STRIPS, ()), tags.get(TIFF_STRIP_BYTES, ()), strict=False)
    if any(start + length > len(opened.data) for start, length in ends):
        return True
    return ends_early(opened.facts.format, opened.data)


def _to_pixels(image: Image.Image, opened: OpenedImage) -> Pixels:
    mode = image.mode
    if mode.startswith("I;16"):
        return _gray_from_16_bits(np.array(image), image)
    if mode == "I" and opened.facts.format == "ppm":
        return _scale_16_bits(np.array(image).astype(np.uint16))
    if mode in {"I", "F"}:
        raise ImageError(
            ErrorCode.DECODE_UNSUPPORTED,
            "32-bit samples are not supported: nothing says which value is white",
            opened.facts,
        )
    if mode in {"1", "L"} and not image.has_transparency_data:
        return np.array(image.convert("L"))
    has_alpha = mode in ALPHA_MODES or image.has_transparency_data
    pixels = np.array(image.convert("RGBA" if has_alpha else "RGB"))
    if _has_deep_colors(image, opened):
        return _from_16_bits(opened.data, pixels)
    return pixels


def _gray_from_16_bits(samples: Samples, image: Image.Image) -> Pixels:
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(TIFF_BITS, (16,))[0]
    pixels = _scale_16_bits(samples, (1 << bits) - 1)
    if tags.get(TIFF_PHOTOMETRIC) == WHITE_IS_ZERO:
        return np.subtract(255, pixels, dtype=np.uint8)
    return pixels


def _scale_16_bits(samples: Samples, white: int = 65535) -> Pixels:
    return cv2.convertScaleAbs(samples.astype(np.uint16, copy=False), alpha=255 / white)  # type: ignore[return-value]


def _has_deep_colors(image: Image.Image, opened: OpenedImage) -> bool:
    if opened.facts.format == "png":
        return opened.data[24] == 16 and "transparency" not in image.info
    return image.mode == "RGB" and getattr(image, "tag_v2", {}).get(TIFF_BITS) == (16, 16, 16)


def _from_16_bits(data: bytes, pixels: Pixels) -> Pixels:
    # Pillow drops the lower byte of 16-bit colours; OpenCV keeps it, so that they can be rounded. Its word
    # is taken only where the two agree on everything but that.
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.dtype != np.uint16 or decoded.shape != pixels.shape:
        return pixels
    code = cv2.COLOR_BGRA2RGBA if decoded.shape[2] == 4 else cv2.COLOR_BGR2RGB
    rounded: Pixels = cv2.cvtColor(_scale_16_bits(decoded), code)  # type: ignore[assignment]
    return rounded if cv2.absdiff(rounded, pixels).max() <= 1 else pixels
