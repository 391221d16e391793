"""The structure of a JPEG: its segments, its frame header and its scans.

A segment is a marker (FF and a byte) with a payload. Each scan is a segment, SOS, followed by entropy-coded data, the
compressed pixels, in which FF is followed by 00. A frame header lists the components: one for gray, else the colours.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

SOI, EOI, SOS, DQT, DRI, DHT = 0xD8, 0xD9, 0xDA, 0xDB, 0xDD, 0xC4
APP0, APP1, APP2, APP14, COM = 0xE0, 0xE1, 0xE2, 0xEE, 0xFE
END = b"\xff\xd9"

PROCESSES = {
    0xC0: "baseline",
    0xC1: "extended sequential",
    0xC2: "progressive",
    0xC3: "lossless",
    0xC5: "hierarchical sequential",
    0xC6: "hierarchical progressive",
    0xC7: "hierarchical lossless",
    0xC9: "arithmetic sequential",
    0xCA: "arithmetic progressive",
    0xCB: "arithmetic lossless",
    0xCD: "arithmetic hierarchical sequential",
    0xCE: "arithmetic hierarchical progressive",
    0xCF: "arithmetic hierarchical lossless",
    0xDE: "hierarchical",
    0xF7: "JPEG-LS",
}
"""Names of the coding processes by the marker of the frame header; of a hierarchical file, by its first marker."""

SEQUENTIAL = frozenset({0xC0, 0xC1})
PROGRESSIVE = frozenset({0xC2, 0xCA})
ARITHMETIC = frozenset({0xC9, 0xCA})
LOSSLESS = 0xC3

STANDALONE = frozenset({0x01, SOI, *range(0xD0, 0xD8)})
"""Markers without a payload."""

RESERVED = frozenset(range(0x02, 0xC0)) | frozenset({0xC8, *range(0xF0, 0xFE)}) - {0xF7}
"""Markers that the standard does not use."""

FILLERS = re.compile(rb"\xff+")
END_OF_SCAN = re.compile(rb"\xff(?=[^\x00\xff\xd0-\xd7])")
"""The marker that ends the entropy-coded data of a scan: any but those of restarts."""

END_OF_IMAGE = re.compile(rb"\xff[\xd8\xd9]")
"""EOI, or the SOI of a file that follows one without EOI."""


class Segment(NamedTuple):
    """A marker, and the start and end of its payload, which exclude the two bytes of its length."""

    marker: int
    start: int
    end: int
    after_junk: bool = False
    """Whether bytes that belong to no segment precede the marker."""


class Frame(NamedTuple):
    """A frame header: marker, bits per sample, size in pixels, number of components, their ids and sampling factors."""

    marker: int = 0
    precision: int = 0
    height: int = 0
    width: int = 0
    components: int = 0
    ids: bytes = b""
    sampling: bytes = b""
    """Of each component, the horizontal factor in the upper four bits and the vertical one in the lower."""

    @classmethod
    def read(cls, marker: int, payload: bytes) -> Frame:
        """Return the frame header with this marker and payload, which has at least six bytes."""
        precision, height, width, components = struct.unpack_from(">BHHB", payload)
        return cls(marker, precision, height, width, components, payload[6::3], payload[7::3])

    @property
    def unit(self) -> tuple[int, int]:
        """Width and height in pixels of a minimum coded unit (MCU), the smallest part of a scan of all components."""
        sampling = b"\x11" if self.components == 1 else self.sampling
        across, down = (factors >> 4 for factors in sampling), (factors & 15 for factors in sampling)
        return 8 * max((1, *across)), 8 * max((1, *down))


def walk_segments(data: bytes | memoryview, position: int = 2) -> Iterator[Segment]:
    """Yield the segments from a position up to and including the next SOS; skip bytes that belong to no segment."""
    expected, size = position, len(data)
    while True:
        fillers = FILLERS.search(data, position)
        if fillers is None or fillers.end() >= size:
            return
        after_junk = fillers.start() != expected
        position = fillers.end() + 1
        marker = data[position - 1]
        if marker == 0 or marker in STANDALONE or marker in RESERVED:
            continue
        if marker == EOI and not after_junk:
            return
        length = int.from_bytes(data[position : position + 2], "big")
        end = position + length
        if after_junk and not _is_plausible(data, marker, position + 2, end):
            continue
        if length < 2 or end > size:
            return
        yield Segment(marker, position + 2, end, after_junk)
        if marker == SOS:
            return
        position = expected = end


def _is_plausible(data: bytes | memoryview, marker: int, start: int, end: int) -> bool:
    """Return whether a payload has a length that its marker allows, or else precedes another marker."""
    if start >= end or end >= len(data) or marker == EOI:
        return False
    length = end - start
    if marker == SOS:
        return length == 4 + 2 * data[start]
    if marker in PROCESSES:
        return length > 6 and length == 6 + 3 * data[start + 5]
    if marker in {DRI, DQT}:
        return length == 2 if marker == DRI else length % 65 == 0 or length % 129 == 0
    if marker == DHT:
        while start < end:
            start += 17 + sum(data[start + 1 : start + 17])
        return start == end
    return data[end] == 0xFF


def walk_scans(data: bytes | memoryview, first: Segment) -> Iterator[Segment]:
    """Yield the SOS segment of each scan, beginning with `first`."""
    scan = first
    while True:
        yield scan
        end = END_OF_SCAN.search(data, scan.end)
        if end is None or end.end() >= len(data) or data[end.end()] in {SOI, EOI}:
            return
        segments = list(walk_segments(data, end.start()))
        if not segments or segments[-1].marker != SOS:
            return
        scan = segments[-1]


def end_of_scans(data: bytes | memoryview, first: Segment) -> int:
    """Return the position of the marker that ends the last scan; the length of the file if there is none."""
    *_, last = walk_scans(data, first)
    found = END_OF_SCAN.search(data, last.end)
    return found.start() if found else len(data)


def lacks_scans(data: bytes | memoryview, frame: Frame, first: Segment) -> bool:
    """Return whether no scan has some bit of some coefficient of a component; decoders use zeros without a warning."""
    if frame.marker not in PROGRESSIVE and data[first.start] == frame.components:
        return False
    missing = {component: bytearray(b"\xff" * 64) for component in frame.ids}
    for scan in walk_scans(data, first):
        payload = bytes(data[scan.start : scan.end])
        if len(payload) < 6:
            continue
        components = payload[1 : 1 + 2 * payload[0] : 2]
        low, high, bits = payload[-3:]
        if frame.marker not in PROGRESSIVE:
            low, high, bits = 0, 63, 0
        for component in components:
            if component in missing and low <= high < 64:
                missing[component][low : high + 1] = bytes((bits & 15,)) * (high + 1 - low)
    return any(map(any, missing.values()))
