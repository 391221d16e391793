"""JPEG: read the header, and decode at the smallest scale of the DCT that is large enough, repaired if necessary."""

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
from darkroom.tasks.imaging.failures import code_of, corrupt, truncated, unsupported
from darkroom.tasks.imaging.formats.base import TOLERATED_DAMAGE, Decoded, DecodeOptions, EncodedImage
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
"""The markers in `PROCESSES` of the coding processes that the decoder reads."""

SCALES = (1, 2, 4)
"""Eighths of the full size that the decoder scales to fast; others take longer than the full size and look worse."""

ICC_PREFIX = b"ICC_PROFILE\x00"
MODES = {1: "L", 3: "RGB", 4: "CMYK"}


def choose_scale(size: Size, min_size: Size) -> int:
    """Return the smallest N, of `SCALES` or 8, for which a picture of `size` scaled by N/8 has at least `min_size`."""
    return next((eighths for eighths in SCALES if all(map(partial(_suffices, eighths), size, min_size))), 8)


def _suffices(eighths: int, length: int, needed: int) -> bool:
    whole, rest = divmod(length * eighths, 8)
    # OpenCV would copy, not resample, a length that is less than a pixel too large.
    return length >= 8 and whole >= needed + bool(rest)


class JpegImage(EncodedImage):
    """A JPEG file, or a JPEG within another file."""

    name = "jpeg"
    signature = re.compile(rb"\xff\xd8\xff")

    def __init__(self, data: bytes | memoryview) -> None:
        super().__init__(data)
        self._segments: list[Segment] = []
        self._frame = Frame()
        self._orientation = 1
        self._profile: bytes | None = None

    def _header_size(self) -> Size:
        """Return width and height as the frame header states them; raises `ImageError`."""
        facts = self.open(lambda _: None)
        return facts.width, facts.height

    def _lacks_data(self) -> bool:
        start = self._segments[-1].end if self._segments else 2
        end = END_OF_IMAGE.search(self.data, start)
        return end is None or self.data[end.start() + 1] == SOI

    def open(self, admit: Callable[[SourceFacts], None]) -> SourceFacts:
        """Read the header and return what it says; see `EncodedImage.open`.

        Raises `ImageError`: `decode.truncated` if the file ends before its first scan, `decode.unsupported` for a kind
        of JPEG that the decoder does not read, `decode.corrupt` for a picture without pixels.
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
            raise truncated("JPEG ends before its first scan")
        problem = ""
        if frame.marker not in DECODABLE:
            problem = f"its coding process is {PROCESSES[frame.marker]}"
        elif frame.precision != 8:
            problem = f"its samples have {frame.precision} bits"
        elif frame.components not in MODES:
            problem = f"it has {frame.components} components"
        if problem:
            raise unsupported(f"this kind of JPEG is not supported: {problem}. Convert it to a baseline JPEG")
        if not frame.width or not frame.height:
            raise corrupt(f"JPEG of {frame.width:,} × {frame.height:,} pixels")

    def decode(self, options: DecodeOptions) -> Decoded:
        """Return the picture in RGB or gray, at the scale that `choose_scale` returns for `options.min_size`.

        Damage that costs no pixels is repaired. Unless `options.tolerant`, raises `decode.truncated` if the end is
        missing, `decode.corrupt` if the decoder warns of other damage.
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
        """Raise `ImageError` if `admit` does, or if the decoder warns of damage.

        For a JPEG within another file, whose decoder ignores such warnings.
        """
        try:
            self.open(admit)
        except ImageError as error:
            if error.code is ErrorCode.DECODE_UNSUPPORTED:
                return  # the decoder of the other file reads more kinds
            raise
        self._read(self._colorspace(gray=False), self._choose_scale((1, 1)), tolerant=False)

    def _choose_scale(self, min_size: Size) -> int:
        # Scaling down a lossless JPEG crashes the decoder.
        return 8 if self._frame.marker == LOSSLESS else choose_scale((self._frame.width, self._frame.height), min_size)

    def _colorspace(self, *, gray: bool) -> str:
        if self._frame.components == 4:
            return "CMYK"
        # The file stores luma, which is gray unless a profile redefines the colours.
        return "GRAY" if self._frame.components == 1 or (gray and self._profile is None) else "RGB"

    def _read(self, space: str, eighths: int, *, tolerant: bool) -> Pixels:
        """Return (height, width, channels) samples at a scale of `eighths`/8; add a warning for tolerated damage.

        Raises `ImageError`, or the decoder's `ValueError`.
        """
        size = self._frame.width, self._frame.height
        width, height = (0, 0) if eighths == 8 else (-(-length * eighths // 8) for length in size)

        def decode(data: bytes | memoryview, *, strict: bool = True) -> Pixels:
            pixels: Pixels = simplejpeg.decode_jpeg(data, space, min_width=width, min_height=height, strict=strict)
            return pixels

        try:
            return self._read_undamaged(decode)
        except (ImageError, ValueError) as error:
            warning = TOLERATED_DAMAGE.get(code_of(error, self.is_cut))
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
        """Return the samples if the decoder accepts the file without a warning, if necessary after a repair."""
        if lacks_scans(self.data, self._frame, self._segments[-1]):
            raise truncated("scans of the JPEG are missing, and a part of its detail with them")
        try:
            return decode(self.data)
        except ValueError as error:
            repair = Repair(bytes(self.data), self._frame, str(error), decode)
        try:
            pixels = repair.run()
        except ValueError as error:
            if code_of(error, self.is_cut) is ErrorCode.DECODE_TRUNCATED:
                raise truncated("the JPEG ends before its last pixel") from error
            raise
        self.warnings += repair.warnings
        return pixels
