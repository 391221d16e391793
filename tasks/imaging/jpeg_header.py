"""The header of a JPEG: its segments up to the first scan, and what they say."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from darkroom.tasks.errors import ErrorCode, ImageError
from darkroom.tasks.imaging.exif import PREFIX, read_orientation
from darkroom.tasks.imaging.facts import SourceFacts

if TYPE_CHECKING:
    from collections.abc import Iterator

SOI, EOI, SOS, APP0, APP1, APP2, APP14, COM, DHT, DAC = (
    0xD8,
    0xD9,
    0xDA,
    0xE0,
    0xE1,
    0xE2,
    0xEE,
    0xFE,
    0xC4,
    0xCC,
)
FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {DHT, DAC, 0xC8}
SEQUENTIAL = frozenset({0xC0, 0xC1})
DECODABLE_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
"""Baseline, extended, progressive; Huffman or arithmetic. The others are lossless or hierarchical."""
STANDALONE = frozenset({0x01, SOI, *range(0xD0, 0xD8)})
FILLERS = re.compile(rb"\xff+")
ICC_PREFIX = b"ICC_PROFILE\x00"
MODES = {1: "L", 3: "RGB", 4: "CMYK"}
JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"


Segment = tuple[int, int, int]
"""A marker, and where its payload starts and ends, without the two length bytes."""


@dataclass(slots=True)
class JpegHeader:
    """What the segments before the first scan say.

    `scan` is where the first scan's header segment begins, or 0 where no scan follows.
    """

    frame: int = 0
    precision: int = 0
    width: int = 0
    height: int = 0
    components: int = 0
    orientation: int = 1
    icc_profile: bytes | None = None
    scan: int = 0
    warnings: list[str] = field(default_factory=list)

    @property
    def facts(self) -> SourceFacts:
        """The header as facts."""
        mode = MODES.get(self.components, f"{self.components} components")
        return SourceFacts("jpeg", mode, self.width, self.height, self.orientation)


def walk_segments(data: bytes | memoryview) -> Iterator[Segment]:
    """Yield the segments of a JPEG up to and with the first scan's header; junk in between is skipped."""
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


def read_header(data: bytes | memoryview) -> JpegHeader:
    """Read a JPEG's header.

    Raises `ImageError`: `decode.truncated` if the file ends before its first scan, `decode.unsupported` for
    kinds of JPEG that no decoder here reads, `decode.corrupt` if the header contradicts itself.
    """
    header = JpegHeader()
    exif: bytes | None = None
    icc_chunks: list[bytes] = []
    for marker, start, end in walk_segments(data):
        if marker in FRAME_HEADERS:
            _read_frame(header, marker, bytes(data[start:end]))
        elif marker == APP1 and exif is None and data[start : min(start + len(PREFIX), end)] == PREFIX:
            exif = bytes(data[start:end])
        elif marker == APP2 and data[start : min(start + len(ICC_PREFIX), end)] == ICC_PREFIX:
            icc_chunks.append(bytes(data[start + len(ICC_PREFIX) : end]))
        elif marker == SOS and end < len(data):
            header.scan = start - 4
    if exif is not None:
        _read_exif(header, exif)
    if icc_chunks:
        _join_profile(header, icc_chunks)
    _refuse_undecodable(header)
    return header


def _read_frame(header: JpegHeader, marker: int, payload: bytes) -> None:
    if len(payload) < 6 or header.components:
        return
    header.frame = marker
    header.precision = payload[0]
    header.height = int.from_bytes(payload[1:3], "big")
    header.width = int.from_bytes(payload[3:5], "big")
    header.components = payload[5]


def _read_exif(header: JpegHeader, exif: bytes) -> None:
    orientation = read_orientation(exif)
    if orientation is None:
        header.warnings.append("exif_invalid")
    else:
        header.orientation = orientation


def _join_profile(header: JpegHeader, chunks: list[bytes]) -> None:
    # Each chunk begins with its number, counted from 1, and the number of chunks.
    ordered = sorted(chunks, key=lambda chunk: chunk[:1])
    if [tuple(chunk[:2]) for chunk in ordered] == [(i + 1, len(chunks)) for i in range(len(chunks))]:
        header.icc_profile = b"".join(chunk[2:] for chunk in ordered)
    else:
        header.warnings.append("icc_invalid")


def _refuse_undecodable(header: JpegHeader) -> None:
    facts = header.facts
    if not header.components or not header.scan:
        known = facts if header.components else None
        raise ImageError(ErrorCode.DECODE_TRUNCATED, "JPEG ends before its first scan", known)
    if header.frame not in DECODABLE_FRAMES:
        raise ImageError(ErrorCode.DECODE_UNSUPPORTED, f"JPEG process SOF{header.frame - 0xC0} is not supported", facts)
    if header.precision != 8:
        raise ImageError(
            ErrorCode.DECODE_UNSUPPORTED, f"JPEG with {header.precision}-bit samples is not supported", facts
        )
    if header.components not in MODES:
        raise ImageError(
            ErrorCode.DECODE_UNSUPPORTED, f"JPEG with {header.components} components is not supported", facts
        )
    if not header.width or not header.height:
        raise ImageError(ErrorCode.DECODE_CORRUPT, f"JPEG of {header.width} × {header.height} pixels", facts)


def normalise_header(data: bytes, header: JpegHeader) -> bytes:
    """Rebuild a JPEG with only those header segments that decoding needs, free of what decoders stumble on.

    Junk between segments, profiles, EXIF and comments go; a JFIF segment is written afresh; the scan
    parameters of a sequential JPEG, which some cameras leave undefined, are set to the only valid ones.
    """
    parts = [data[:2]]
    for marker, start, end in walk_segments(data):
        if marker == APP0 and data.startswith(b"JFIF\x00", start, end):
            parts.append(JFIF)
        elif marker == SOS and header.frame in SEQUENTIAL:
            parts += [data[start - 4 : end - 3], b"\x00\x3f\x00", data[end:]]
        elif marker == SOS:
            parts.append(data[start - 4 :])
        elif _is_needed(data, marker, start, end):
            parts.append(data[start - 4 : end])
    return b"".join(parts)


def _is_needed(data: bytes, marker: int, start: int, end: int) -> bool:
    if marker == APP14:
        # A colour transform that isn't one of the three leaves it to the decoder to guess.
        return data.startswith(b"Adobe", start, end) and data[end - 1] <= 2
    return marker != COM and not APP0 <= marker < APP0 + 16
