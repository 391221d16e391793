"""JPEG: its header, and decoding at the smallest scale of the DCT that is large enough."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import simplejpeg

from darkroom.tasks.errors import ErrorCode, ImageError
from darkroom.tasks.imaging.bands import Pixels
from darkroom.tasks.imaging.color import cmyk_to_rgb, to_srgb
from darkroom.tasks.imaging.exif import PREFIX, read_orientation
from darkroom.tasks.imaging.formats.base import Decoded, DecodeOptions, EncodedImage
from darkroom.tasks.imaging.records import Size, SourceFacts

SOI, EOI, SOS, APP0, APP1, APP2, APP14, COM = 0xD8, 0xD9, 0xDA, 0xE0, 0xE1, 0xE2, 0xEE, 0xFE
FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
SEQUENTIAL = frozenset({0xC0, 0xC1})
DECODABLE_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
"""Baseline, extended, progressive; Huffman or arithmetic. The others are lossless or hierarchical."""

STANDALONE = frozenset({0x01, SOI, *range(0xD0, 0xD8)})
"""Markers without a segment."""

FILLERS = re.compile(rb"\xff+")
END = b"\xff\xd9"
ICC_PREFIX = b"ICC_PROFILE\x00"
MODES = {1: "L", 3: "RGB", 4: "CMYK"}
JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"

PREMATURE_END = "Premature end of JPEG file"
EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
HEADER_COMPLAINT = re.compile(
    r"bad ICC marker|JFIF revision|Adobe color transform|Invalid SOS parameters|"
    r"extraneous bytes before marker 0x(e|db|fe)"
)
"""Warnings of the decoder that say nothing about the pixels."""


Segment = tuple[int, int, int]
"""A marker, and where its payload starts and ends, without the two length bytes."""


class Frame(NamedTuple):
    """A frame header: its marker, bits per sample, size in pixels, and number of components."""

    marker: int = 0
    precision: int = 0
    height: int = 0
    width: int = 0
    components: int = 0


def walk_segments(data: bytes | memoryview) -> Iterator[Segment]:
    """Yield the segments up to and with the first scan's header; junk in between is skipped."""
    position, size = 2, len(data)
    while True:
        fillers = FILLERS.search(data, position)
        if fillers is None or fillers.end() >= size:
            return
        position = fillers.end()
        marker = data[position]
        position += 1
        if marker == 0 or marker in STANDALONE:
            continue
        if marker == EOI:
            return
        length = int.from_bytes(data[position : position + 2], "big")
        if length < 2 or position + length > size:
            return
        yield marker, position + 2, position + length
        if marker == SOS:
            return
        position += length


def reduced_size(width: int, height: int, min_width: int, min_height: int) -> tuple[int, int, int]:
    """Return (N, width, height) of the smallest N/8 reduction that has at least the given size.

    N is 8 if even the full size is too small.
    """
    for eighths in range(1, 8):
        reduced_width, reduced_height = -(-width * eighths // 8), -(-height * eighths // 8)
        if reduced_width >= min_width and reduced_height >= min_height:
            return eighths, reduced_width, reduced_height
    return 8, width, height


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
        self._scan = 0
        """Where the first scan's header segment begins; 0 where no scan follows."""

    def _header_size(self) -> Size:
        """Return the size that the frame header states; raises `ImageError`."""
        facts = self.open(lambda _: None)
        return facts.width, facts.height

    def _lacks_data(self) -> bool:
        return bytes(self.data).find(END, self._scan) < 0

    def open(self, admit: Callable[[SourceFacts], None]) -> SourceFacts:
        """Read the header and return what it says.

        Raises `ImageError`: `decode.truncated` if the file ends before its first scan, `decode.unsupported` for
        kinds of JPEG that no decoder here reads, `decode.corrupt` if the header contradicts itself.
        """
        self._segments = list(walk_segments(self.data))
        exif: bytes | None = None
        icc_chunks: list[bytes] = []
        for marker, start, end in self._segments:
            payload = self.data[start:end]
            if marker in FRAME_HEADERS and not self._frame.components and len(payload) >= 6:
                self._frame = Frame(marker, *struct.unpack_from(">BHHB", payload))
            elif marker == APP1 and exif is None and payload[: len(PREFIX)] == PREFIX:
                exif = bytes(payload)
            elif marker == APP2 and payload[: len(ICC_PREFIX)] == ICC_PREFIX:
                icc_chunks.append(bytes(payload[len(ICC_PREFIX) :]))
            elif marker == SOS and end < len(self.data):
                self._scan = start - 4
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
        if not frame.components or not self._scan:
            raise ImageError(ErrorCode.DECODE_TRUNCATED, "JPEG ends before its first scan")
        unsupported = ""
        if frame.marker not in DECODABLE_FRAMES:
            unsupported = f"process SOF{frame.marker - 0xC0} is"
        elif frame.precision != 8:
            unsupported = f"with {frame.precision}-bit samples is"
        elif frame.components not in MODES:
            unsupported = f"with {frame.components} components is"
        if unsupported:
            raise ImageError(ErrorCode.DECODE_UNSUPPORTED, f"JPEG {unsupported} not supported")
        if not frame.width or not frame.height:
            raise ImageError(ErrorCode.DECODE_CORRUPT, f"JPEG of {frame.width} × {frame.height} pixels")

    def decode(self, options: DecodeOptions) -> Decoded:
        """Decode to RGB or gray in sRGB, at the smallest N/8 that has `options.min_size`.

        Raises `decode.corrupt` if the decoder warns of the pixels, and `decode.truncated` if the end is missing, unless
        `options.tolerant`. A faulty header is repaired.
        """
        space = self._colorspace(gray=options.gray)
        eighths, width, height = reduced_size(self._frame.width, self._frame.height, *options.min_size)
        pixels = self._read(space, (width, height), tolerant=options.tolerant)
        if eighths < 8:
            pixels = self._cut_partial_edges(pixels, eighths, options.min_size)
        if space == "CMYK":
            # All writers of CMYK JPEGs store the inverted values, as Adobe does.
            pixels = cmyk_to_rgb(np.subtract(255, pixels, dtype=np.uint8), self._profile, self.warnings)
        else:
            pixels = to_srgb(pixels[:, :, 0] if space == "GRAY" else pixels, self._profile, self.warnings)
        return Decoded(pixels, self._orientation, tuple(self.warnings))

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
        self._read(self._colorspace(gray=False), (1, 1), tolerant=False)

    def _colorspace(self, *, gray: bool) -> str:
        if self._frame.components == 4:
            return "CMYK"
        # The file stores luma, which is gray unless a profile redefines the colours.
        return "GRAY" if self._frame.components == 1 or (gray and self._profile is None) else "RGB"

    def _cut_partial_edges(self, pixels: Pixels, eighths: int, min_size: Size) -> Pixels:
        # Reduced sizes are rounded up. Dropping a last row or column that covers less than half a pixel of the
        # source shifts the picture less than keeping it.
        width = max(min_size[0], (self._frame.width * eighths + 4) // 8)
        height = max(min_size[1], (self._frame.height * eighths + 4) // 8)
        return pixels[:height, :width]

    def _read(self, space: str, min_size: Size, *, tolerant: bool) -> Pixels:
        """Return (height, width, channels) samples; warn of what is forgiven.

        Raises `ImageError`, or the codec's `ValueError`.
        """

        def decode(data: bytes | memoryview, *, strict: bool = True) -> Pixels:
            pixels: Pixels = simplejpeg.decode_jpeg(
                data, space, min_width=min_size[0], min_height=min_size[1], strict=strict
            )
            return pixels

        data = self.data
        try:
            return decode(data)
        except ValueError as error:
            complaint = str(error)
        if HEADER_COMPLAINT.search(complaint):
            data = self._rebuild()
            try:
                pixels = decode(data)
            except ValueError as error:
                complaint = str(error)
            else:
                self.warnings.append("header_repaired")
                return pixels
        if PREMATURE_END in complaint:
            if not tolerant:
                raise ImageError(ErrorCode.DECODE_TRUNCATED, complaint)
            self.warnings.append("truncated")
        elif self._is_padding(bytes(data), complaint):
            self.warnings.append("extraneous_data")
        else:
            raise ValueError(complaint)
        return decode(data, strict=False)

    def _is_padding(self, data: bytes, complaint: str) -> bool:
        """Return whether the bytes after the last pixel are one byte repeated, as some cameras write.

        Anything else there is pixel data that the decoder could not follow.
        """
        match = EXTRANEOUS.search(complaint)
        if match is None or int(match[2], 16) != EOI:
            return False
        end = data.find(END, self._scan)
        return len(set(data[max(end - int(match[1]), 0) : end])) == 1

    def _rebuild(self) -> bytes:
        """Return the file with only those header segments that decoding needs, so that decoders accept it.

        Junk between segments, profiles, EXIF and comments are left out; a JFIF segment is written anew; the scan
        parameters of a sequential JPEG, which some cameras leave undefined, are set to the only valid ones.
        """
        data = bytes(self.data)
        parts = [data[:2]]
        for marker, start, end in self._segments:
            if marker == APP0 and data.startswith(b"JFIF\x00", start, end):
                parts.append(JFIF)
            elif marker == SOS and self._frame.marker in SEQUENTIAL:
                parts += [data[start - 4 : end - 3], b"\x00\x3f\x00", data[end:]]
            elif marker == SOS:
                parts.append(data[start - 4 :])
            elif marker == APP14:
                # Without an Adobe segment the decoder chooses a colour transform; an undefined one is dropped.
                if data.startswith(b"Adobe", start, end) and data[end - 1] <= 2:
                    parts.append(data[start - 4 : end])
            elif marker != COM and not APP0 <= marker < APP0 + 16:
                parts.append(data[start - 4 : end])
        return b"".join(parts)
