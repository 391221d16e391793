"""JPEG: its header, and decoding at the smallest scale of the DCT that is large enough."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import numpy as np
import simplejpeg

from darkroom.tasks.errors import ErrorCode, ImageError
from darkroom.tasks.imaging.bands import Pixels
from darkroom.tasks.imaging.color import cmyk_to_rgb, to_srgb
from darkroom.tasks.imaging.exif import PREFIX, read_orientation
from darkroom.tasks.imaging.failures import code_of
from darkroom.tasks.imaging.formats.base import DAMAGE_WARNINGS, Decoded, DecodeOptions, EncodedImage
from darkroom.tasks.imaging.formats.jpeg_repair import Repair, cut_at_marker, has_junk, rebuild_header
from darkroom.tasks.imaging.formats.jpeg_structure import (
    APP1,
    APP2,
    END_OF_IMAGE,
    EOI,
    LOSSLESS,
    PROCESSES,
    SOI,
    SOS,
    Frame,
    Segment,
    lacks_scans,
    walk_segments,
)
from darkroom.tasks.imaging.records import Size, SourceFacts

DECODABLE = frozenset({0xC0, 0xC1, 0xC2, LOSSLESS, 0xC9, 0xCA})
"""Frame headers of the coding processes that the decoder reads."""

SCALES = (1, 2, 4)
"""Eighths of the size for which the decoder is fast; others are slower than the full size and look worse."""

ICC_PREFIX = b"ICC_PROFILE\x00"
MODES = {1: "L", 3: "RGB", 4: "CMYK"}


def choose_scale(size: Size, min_size: Size) -> int:
    """Return N of the smallest scale N/8 at which a picture of `size` has at least `min_size`; 8 for the full size."""
    return next((eighths for eighths in SCALES if all(map(partial(_suffices, eighths), size, min_size))), 8)


def _suffices(eighths: int, length: int, needed: int) -> bool:
    whole, rest = divmod(length * eighths, 8)
    # OpenCV copies, rather than resamples, what is less than a pixel too large.
    return length >= 8 and whole >= needed + bool(rest)


class JpegImage(EncodedImage):
    """A JPEG, or the part of another file that is one."""

    name = "jpeg"
    signature = re.compile(rb"\xff\xd8\xff")

    def __init__(self, data: bytes | memoryview) -> None:
        super().__init__(data)
        self._segments: list[Segment] = []
        self._frame = Frame()
        self._orientation = 1
        self._profile: bytes | None = None

    def _header_size(self) -> Size:
        """Return the size that the frame header states; raises `ImageError`."""
        facts = self.open(lambda _: None)
        return facts.width, facts.height

    def _lacks_data(self) -> bool:
        start = self._segments[-1].end if self._segments else 2
        end = END_OF_IMAGE.search(self.data, start)
        return end is None or self.data[end.start() + 1] == SOI

    def open(self, admit: Callable[[SourceFacts], None]) -> SourceFacts:
        """Read the header and return what it says.

        Raises `ImageError`: `decode.truncated` if the file ends before its first scan, `decode.unsupported` for
        kinds of JPEG that no decoder here reads, `decode.corrupt` if the header contradicts itself.
        """
        self._segments = list(walk_segments(self.data))
        exif: bytes | None = None
        icc_chunks: list[bytes] = []
        for marker, start, end, _ in self._segments:
            payload = self.data[start:end]
            if marker in PROCESSES and not self._frame.components and len(payload) >= 6:
                self._frame = Frame.read(marker, bytes(payload))
            elif marker == APP1 and exif is None and payload[: len(PREFIX)] == PREFIX:
                exif = bytes(payload)
            elif marker == APP2 and payload[: len(ICC_PREFIX)] == ICC_PREFIX:
                icc_chunks.append(bytes(payload[len(ICC_PREFIX) :]))
        if exif is not None:
            self._orientation = self._valid_orientation(read_orientation(exif))
        if icc_chunks:
            self._join_profile(icc_chunks)
        frame = self._frame
        mode = MODES.get(frame.components, f"{frame.components} components")
        facts = SourceFacts(self.name, mode, frame.width, frame.height, self._orientation)
        self.facts = facts if frame.components else None
        self._refuse_undecodable()
        admit(facts)
        return facts

    def _join_profile(self, chunks: list[bytes]) -> None:
        # Each chunk begins with its number, counted from 1, and the number of chunks.
        ordered = sorted(chunks, key=lambda chunk: chunk[:1])
        if [tuple(chunk[:2]) for chunk in ordered] == [(i + 1, len(chunks)) for i in range(len(chunks))]:
            self._profile = b"".join(chunk[2:] for chunk in ordered)
        else:
            self.warnings.append("icc_invalid")

    def _refuse_undecodable(self) -> None:
        frame = self._frame
        scan = self._segments[-1] if self._segments else Segment(EOI, 0, 0)
        if not frame.components or scan.marker != SOS or scan.end >= len(self.data):
            raise ImageError(ErrorCode.DECODE_TRUNCATED, "JPEG ends before its first scan")
        unsupported = ""
        if frame.marker not in DECODABLE:
            unsupported = f"its coding process is {PROCESSES[frame.marker]}"
        elif frame.precision != 8:
            unsupported = f"its samples have {frame.precision} bits"
        elif frame.components not in MODES:
            unsupported = f"it has {frame.components} components"
        if unsupported:
            raise ImageError(
                ErrorCode.DECODE_UNSUPPORTED,
                f"this kind of JPEG is not supported: {unsupported}. Convert it to a baseline JPEG",
            )
        if not frame.width or not frame.height:
            raise ImageError(ErrorCode.DECODE_CORRUPT, f"JPEG of {frame.width} × {frame.height} pixels")

    def decode(self, options: DecodeOptions) -> Decoded:
        """Decode to RGB or gray in sRGB, at the smallest N/8 that has `options.min_size`.

        Raises `decode.corrupt` if the decoder warns of the pixels, and `decode.truncated` if the end is missing, unless
        `options.tolerant`. A faulty header is repaired.
        """
        space = self._colorspace(gray=options.gray)
        width, height = self._frame.width, self._frame.height
        eighths = self._choose_scale(options.min_size)
        pixels = self._read(space, eighths, tolerant=options.tolerant)
        if space == "CMYK":
            # All writers of CMYK JPEGs store the inverted values, as Adobe does.
            pixels = cmyk_to_rgb(np.subtract(255, pixels, dtype=np.uint8), self._profile, self.warnings)
        else:
            pixels = to_srgb(pixels[:, :, 0] if space == "GRAY" else pixels, self._profile, self.warnings)
        extent = (width * eighths / 8, height * eighths / 8) if eighths < 8 else None
        return Decoded(pixels, self._orientation, tuple(self.warnings), extent)

    def check_undamaged(self, admit: Callable[[SourceFacts], None]) -> None:
        """Raise `ImageError` if `admit` does, or if the decoder complains of the pixels.

        For a part of another file, whose decoder has read it without an error.
        """
        try:
            self.open(admit)
        except ImageError as error:
            if error.code is ErrorCode.DECODE_UNSUPPORTED:
                return  # the other decoder reads more kinds of JPEG
            raise
        self._read(self._colorspace(gray=False), self._choose_scale((1, 1)), tolerant=False)

    def _choose_scale(self, min_size: Size) -> int:
        # The decoder crashes when it is to reduce a lossless JPEG.
        return 8 if self._frame.marker == LOSSLESS else choose_scale((self._frame.width, self._frame.height), min_size)

    def _colorspace(self, *, gray: bool) -> str:
        if self._frame.components == 4:
            return "CMYK"
        # The file stores luma, which is gray unless a profile redefines the colours.
        return "GRAY" if self._frame.components == 1 or (gray and self._profile is None) else "RGB"

    def _read(self, space: str, eighths: int, *, tolerant: bool) -> Pixels:
        """Return (height, width, channels) samples at a scale of `eighths`; warn of what is forgiven.

        Raises `ImageError`, or the codec's `ValueError`.
        """
        least = (
            (0, 0) if eighths == 8 else (-(-self._frame.width * eighths // 8), -(-self._frame.height * eighths // 8))
        )

        def decode(data: bytes | memoryview, *, strict: bool = True) -> Pixels:
            pixels: Pixels = simplejpeg.decode_jpeg(data, space, min_width=least[0], min_height=least[1], strict=strict)
            return pixels

        try:
            return self._read_undamaged(decode)
        except (ImageError, ValueError) as error:
            warning = DAMAGE_WARNINGS.get(code_of(error, self.is_cut))
            if not tolerant or warning is None:
                raise
            self.warnings.append(warning)
        data = bytes(self.data)
        if has_junk(self._segments):
            data = rebuild_header(data, self._segments, self._frame)
        try:
            return decode(data, strict=False)
        except ValueError:
            *_, scan = walk_segments(data)
            return decode(cut_at_marker(data, scan), strict=False)

    def _read_undamaged(self, decode: Callable[[bytes | memoryview], Pixels]) -> Pixels:
        """Return the samples of a file that the decoder does not complain of, if need be after a repair."""
        if lacks_scans(self.data, self._frame, self._segments[-1]):
            raise ImageError(
                ErrorCode.DECODE_TRUNCATED, "scans of the JPEG are missing, and a part of its detail with them"
            )
        try:
            return decode(self.data)
        except ValueError as error:
            repair = Repair(bytes(self.data), self._frame, str(error), decode)
        try:
            pixels = repair.run()
        except ValueError as error:
            if code_of(error, self.is_cut) is ErrorCode.DECODE_TRUNCATED:
                raise ImageError(ErrorCode.DECODE_TRUNCATED, "the JPEG ends before its last pixel") from error
            raise
        self.warnings += repair.warnings
        return pixels
