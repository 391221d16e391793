"""JPEG straight to the smallest size that its DCT offers above the target."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg

from darkroom.tasks.errors import ErrorCode, ImageError
from darkroom.tasks.imaging.color import cmyk_to_rgb, to_srgb
from darkroom.tasks.imaging.facts import Decoded
from darkroom.tasks.imaging.jpeg_header import EOI, JpegHeader, normalise_header, read_header

if TYPE_CHECKING:
    from darkroom.tasks.imaging.facts import Pixels

PREMATURE_END = "Premature end of JPEG file"
EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
HEADER_COMPLAINTS = (
    "bad ICC marker",
    "JFIF revision",
    "Adobe color transform",
    "Invalid SOS parameters",
    "extraneous bytes before marker 0xe",
    "extraneous bytes before marker 0xdb",
    "extraneous bytes before marker 0xfe",
)
"""What the decoder warns of, that says nothing about the pixels."""


def reduced_size(width: int, height: int, min_width: int, min_height: int) -> tuple[int, int, int]:
    """Return (N, width, height) of the smallest N/8 reduction that has at least the given size.

    N is 8 where even the full size is too small.
    """
    for eighths in range(1, 8):
        reduced_width, reduced_height = -(-width * eighths // 8), -(-height * eighths // 8)
        if reduced_width >= min_width and reduced_height >= min_height:
            return eighths, reduced_width, reduced_height
    return 8, width, height


def decode_jpeg(
    data: bytes | memoryview, header: JpegHeader, needed: tuple[int, int], *, gray: bool, keep_truncated: bool
) -> Decoded:
    """Decode a JPEG to RGB or gray in sRGB, at the smallest N/8 that has the `needed` width and height.

    Pixels that the decoder is unsure of are refused with `decode.corrupt`, a missing end with
    `decode.truncated` unless it is to be kept; complaints about the header are mended.
    """
    eighths, width, height = reduced_size(header.width, header.height, *needed)
    space = _colorspace(header, gray)
    reader = _StrictReader(space, width, height, keep_truncated)
    pixels = reader.read(data, header)
    pixels = _cut_partial_edges(pixels, header, eighths, needed)
    warnings = [*header.warnings, *reader.warnings]
    if space == "CMYK":
        # Adobe's convention, which every writer of CMYK JPEGs follows: stored inverted.
        pixels = cmyk_to_rgb(np.subtract(255, pixels, dtype=np.uint8), header.icc_profile, warnings)
    else:
        pixels = pixels[:, :, 0] if space == "GRAY" else pixels
        pixels = to_srgb(pixels, header.icc_profile, warnings)
    return Decoded(pixels, header.orientation, tuple(warnings))


def refuse_damaged_jpeg(data: bytes, size: tuple[int, int]) -> None:
    """Raise `ImageError` for a JPEG, a part of another file, that is larger than `size` or that a decoder complains of.

    That file's own decoder has read it without a word, so that only pixels count here.
    """
    try:
        header = read_header(data)
    except ImageError as error:
        if error.code is ErrorCode.DECODE_UNSUPPORTED:
            return  # not by this decoder
        raise
    if header.width > size[0] or header.height > size[1]:
        message = f"a part of {header.width} × {header.height} pixels where there is room for {size[0]} × {size[1]}"
        raise ImageError(ErrorCode.DECODE_CORRUPT, message)
    _StrictReader(_colorspace(header, gray=False), 1, 1, keep_truncated=False).read(data, header)


def _colorspace(header: JpegHeader, gray: bool) -> str:
    if header.components == 4:
        return "CMYK"
    # Luma straight from the file, unless a profile says that its colours are other ones.
    if header.components == 1 or (gray and header.icc_profile is None):
        return "GRAY"
    return "RGB"


def _cut_partial_edges(pixels: Pixels, header: JpegHeader, eighths: int, needed: tuple[int, int]) -> Pixels:
    # A reduced picture is rounded up to whole pixels. A last one that stands for less than half of itself
    # would shift the picture more than leaving it out does.
    width = max(needed[0], (header.width * eighths + 4) // 8)
    height = max(needed[1], (header.height * eighths + 4) // 8)
    return pixels[:height, :width] if eighths < 8 else pixels


class _StrictReader:
    """Decodes one JPEG so that damage is noticed, and collects what it had to forgive."""

    def __init__(self, colorspace: str, width: int, height: int, keep_truncated: bool) -> None:
        self.colorspace = colorspace
        self.width = width
        self.height = height
        self.keep_truncated = keep_truncated
        self.warnings: list[str] = []

    def read(self, data: bytes | memoryview, header: JpegHeader) -> Pixels:
        """Return (height, width, channels) pixels; raises `ImageError` or the codec's `ValueError`."""
        try:
            return self._decode(data)
        except ValueError as error:
            complaint = str(error)
        data = bytes(data)
        if any(known in complaint for known in HEADER_COMPLAINTS):
            data = normalise_header(data, header)
            try:
                pixels = self._decode(data)
            except ValueError as error:
                complaint = str(error)
            else:
                self.warnings.append("header_repaired")
                return pixels
        return self._forgive(data, header, complaint)

    def _decode(self, data: bytes | memoryview, strict: bool = True) -> Pixels:
        pixels: Pixels = simplejpeg.decode_jpeg(
            data, self.colorspace, min_width=self.width, min_height=self.height, strict=strict
        )
        return pixels

    def _forgive(self, data: bytes, header: JpegHeader, complaint: str) -> Pixels:
        if PREMATURE_END in complaint:
            if not self.keep_truncated:
                raise ImageError(ErrorCode.DECODE_TRUNCATED, complaint, header.facts)
            self.warnings.append("truncated")
        elif _is_padding(data, header, complaint):
            self.warnings.append("extraneous_data")
        else:
            raise ValueError(complaint)
        return self._decode(data, strict=False)


def _is_padding(data: bytes, header: JpegHeader, complaint: str) -> bool:
    """Tell whether what follows the last pixel is one byte repeated, as some cameras write it.

    Anything else there is pixel data that the decoder lost its way in.
    """
    match = EXTRANEOUS.search(complaint)
    if match is None or int(match[2], 16) != EOI:
        return False
    end = data.find(b"\xff\xd9", header.scan)
    return len(set(data[max(end - int(match[1]), 0) : end])) == 1
