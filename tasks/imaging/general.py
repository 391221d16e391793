"""Every other format through Pillow, brought to 8-bit sRGB without losing what it means."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from darkroom.tasks.errors import ErrorCode, ImageError
from darkroom.tasks.imaging.bands import to_array
from darkroom.tasks.imaging.color import cmyk_to_rgb, to_srgb
from darkroom.tasks.imaging.container import (
    declared_size,
    ends_early,
    for_decoding,
    refuse_damaged_pixels,
    refuse_wrong_checksums,
)
from darkroom.tasks.imaging.exif import read_orientation
from darkroom.tasks.imaging.facts import Decoded, SourceFacts
from darkroom.tasks.imaging.failures import translate
from darkroom.tasks.imaging.gif import count_gif_frames
from darkroom.tasks.imaging.limits import MAX_FRAMES, refuse_too_many_pixels
from darkroom.tasks.imaging.png import count_png_frames, png_exif, png_profile
from darkroom.tasks.imaging.readers import READERS, AvifReader, TiffReader
from darkroom.tasks.imaging.samples import to_pixels
from darkroom.tasks.imaging.tiff import HEIGHT, WIDTH, count_tiff_pages, refuse_incomplete_tiff

if TYPE_CHECKING:
    from PIL import Image, ImageFile

    from darkroom.tasks.imaging.facts import Allow


@dataclass(frozen=True, slots=True)
class OpenedImage:
    """A file whose header was read, and what it said."""

    data: bytes
    image: ImageFile.ImageFile
    facts: SourceFacts
    warnings: tuple[str, ...]


def open_image(image_format: str, data: bytes, max_pixels: int, allow: Allow) -> OpenedImage:
    """Read the header of a file in one of `READERS`' formats, of which some allocate a picture to do so.

    Raises `ImageError`: `decode.too_many_pixels` before a decoder allocates anything, or whatever the header
    is refused for.
    """
    size = declared_size(image_format, data)
    facts = SourceFacts(image_format, "", *size) if size else None
    if facts:
        refuse_too_many_pixels(facts, max_pixels)
        allow(facts.width * facts.height)
    try:
        if image_format == "tiff":
            refuse_incomplete_tiff(data)
        image = READERS[image_format](io.BytesIO(for_decoding(image_format, data)))
        opened = _describe(image_format, data, image)
    except Exception as error:
        raise translate(error, facts, ends_early(image_format, data)) from error
    refuse_too_many_pixels(opened.facts, max_pixels)
    return opened


def _describe(image_format: str, data: bytes, image: ImageFile.ImageFile) -> OpenedImage:
    width, height = image.size
    if isinstance(image, TiffReader):
        # Pillow reports the size that the picture will have when it is turned.
        width, height = image.tag_v2[WIDTH], image.tag_v2[HEIGHT]
    orientation = _orientation(image_format, data, image)
    warnings = ("exif_invalid",) if orientation is None else ()
    frames = min(_count_frames(image_format, data, image), MAX_FRAMES)
    facts = SourceFacts(image_format, image.mode, width, height, orientation or 1, frames)
    return OpenedImage(data, image, facts, warnings)


def _orientation(image_format: str, data: bytes, image: ImageFile.ImageFile) -> int | None:
    if isinstance(image, TiffReader | AvifReader):
        return image.orientation
    exif = png_exif(data) if image_format == "png" else image.info.get("exif")
    return read_orientation(exif) if exif else 1


def _count_frames(image_format: str, data: bytes, image: ImageFile.ImageFile) -> int:
    if image_format == "gif":
        return count_gif_frames(data)
    if image_format == "tiff":
        return count_tiff_pages(data)
    if image_format == "png":
        return count_png_frames(data)
    return int(getattr(image, "n_frames", 1)) if image_format in {"webp", "avif"} else 1


def decode_image(opened: OpenedImage, *, keep_truncated: bool) -> Decoded:
    """Decode the first frame to gray, RGB or straight-alpha RGBA in sRGB, and close the image.

    Of a file that ends early, what was decoded is kept if asked for; the rest is black, or transparent.
    """
    facts, warnings = opened.facts, list(opened.warnings)
    refuse_wrong_checksums(facts.format, opened.data)
    image, orientation = _load(opened, warnings, keep_truncated=keep_truncated)
    expected = facts.oriented_size if orientation != facts.orientation else (facts.width, facts.height)
    if image.size != expected:
        message = f"header says {expected[0]} × {expected[1]} pixels, contents {image.size[0]} × {image.size[1]}"
        raise ImageError(ErrorCode.DECODE_CORRUPT, message, facts)
    profile = _profile(opened)
    if image.mode == "CMYK":
        samples = to_array(image)
        image.close()
        return Decoded(cmyk_to_rgb(samples, profile, warnings), orientation, tuple(warnings))
    pixels = to_pixels(image, facts, None if "truncated" in warnings else opened.data)
    image.close()
    return Decoded(to_srgb(pixels, profile, warnings), orientation, tuple(warnings))


def _profile(opened: OpenedImage) -> bytes | None:
    if opened.facts.format == "png":
        return png_profile(opened.data)
    profile = opened.image.info.get("icc_profile") or None
    return profile if profile is None or isinstance(profile, bytes) else b"invalid"


def _load(opened: OpenedImage, warnings: list[str], *, keep_truncated: bool) -> tuple[Image.Image, int]:
    image, facts = opened.image, opened.facts
    try:
        image.load()
        # Its canvases are no longer needed, and as large as the picture.
        image.__dict__.pop("_decoder", None)
        refuse_damaged_pixels(facts.format, opened.data)
    except Exception as error:
        failure = translate(error, facts, ends_early(facts.format, opened.data))
        if not keep_truncated or failure.code is not ErrorCode.DECODE_TRUNCATED or image._im is None:
            raise failure from error
        warnings.append("truncated")
        # Without its list of tiles Pillow takes the image, as far as it came, for a loaded one.
        image.tile = []
        return image.copy(), _left_to_turn(opened)
    return image, _left_to_turn(opened)


def _left_to_turn(opened: OpenedImage) -> int:
    return 1 if isinstance(opened.image, TiffReader) and opened.image.is_turned else opened.facts.orientation
