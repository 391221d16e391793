"""Repair damage to JPEGs that costs no pixels, until the decoder accepts the file without a warning.

Scans may consist of restart intervals: runs of minimum coded units (MCUs), separated by restart markers, that can be
decoded independently.
"""

from __future__ import annotations

import re
import string
import struct
from bisect import bisect_left
from collections.abc import Callable, Sequence

from darkroom.tasks.imaging.bands import Pixels
from darkroom.tasks.imaging.formats.jpeg_structure import (
    APP0,
    APP14,
    ARITHMETIC,
    COM,
    DHT,
    DQT,
    DRI,
    END,
    END_OF_SCAN,
    EOI,
    SEQUENTIAL,
    SOS,
    Frame,
    Segment,
    end_of_scans,
    walk_segments,
)

JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
RESTART = re.compile(rb"\xff+([\xd0-\xd7])")
LONG_RUN = re.compile(rb"(.)\1{7}", re.DOTALL)
TEXT = string.printable.encode()

HEADER_WARNING = re.compile(
    r"bad ICC marker|JFIF revision|Adobe color transform|Invalid SOS parameters|"
    r"extraneous bytes before marker 0x(e|c|da|db|dd|fe)"
)
"""Warnings of the decoder about the header, which may not affect pixels."""

EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
CUT_SHORT = "premature end of data segment"
"""In the decoder's warning about a scan, or a restart interval, that ends before its last pixel."""

MAX_TRAILING_BYTES = 1024
"""More bytes than this without an invalid marker, a run or a text are most likely entropy-coded data."""

LOOKAHEAD = 12
"""Bytes that the decoder may have read ahead, and does not count as extraneous."""

MAX_SIDE = 65500
"""Longest row in pixels that the decoder accepts."""

Decode = Callable[[bytes], Pixels]
"""Returns the samples of a JPEG; raises `ValueError` for any error or warning."""


class Repair:
    """A repair in steps; after each, the file is decoded again.

    `data` is the file after the steps so far, `problem` the decoder's message about it, `warnings` the codes for the
    steps that changed it.
    """

    def __init__(self, data: bytes, frame: Frame, problem: str, decode: Decode) -> None:
        self.data = data
        self.problem = problem
        self.warnings: list[str] = []
        self._frame = frame
        self._decode = decode

    def run(self) -> Pixels:
        """Return the samples of the repaired file; raise the decoder's `ValueError` if no step helps."""
        for warning, step in (
            ("header_repaired", self._rebuild_header),
            ("eoi_missing", self._add_eoi),
            ("extraneous_data", self._drop_padding),
            ("extraneous_data", self._drop_trailing_data),
        ):
            repaired = step(list(walk_segments(self.data)))
            if repaired is None or repaired == self.data:
                continue
            self.data = repaired
            self.warnings.append(warning)
            try:
                return self._decode(self.data)
            except ValueError as error:
                self.problem = str(error)
        raise ValueError(self.problem)

    def _rebuild_header(self, segments: Sequence[Segment]) -> bytes | None:
        if HEADER_WARNING.search(self.problem) or has_junk(segments):
            return rebuild_header(self.data, segments, self._frame)
        return None

    def _add_eoi(self, segments: Sequence[Segment]) -> bytes | None:
        """Return a file without EOI with one at the end of its scans; None if it has one.

        A byte repeated at the end is dropped: it is not pixels, but decoders would decode zeros. None, too, if the file
        has arithmetic coding, of which decoders don't notice that pixels are missing.
        """
        if self._frame.marker in ARITHMETIC:
            return None
        end = end_of_scans(self.data, segments[-1])
        if self.data.startswith(END, end):
            return None
        stripped = self.data[:end].rstrip(self.data[end - 1 : end])
        return self.data[: end if end - len(stripped) == 1 else max(len(stripped), segments[-1].end)] + END

    def _drop_padding(self, segments: Sequence[Segment]) -> bytes | None:
        """Return the file without padding, one byte repeated, at the end of restart intervals.

        None if it has no restart intervals, or has too few. Each interval is decoded by itself, as its pixels may end
        with the same byte.
        """
        frame, scan = self._frame, segments[-1]
        interval = _restart_interval(self.data, segments)
        if frame.marker not in SEQUENTIAL or not interval or self.data[scan.start] != frame.components:
            return None
        across, down = frame.unit
        total = -(-frame.width // across) * -(-frame.height // down)
        pieces = RESTART.split(self.data[scan.end : end_of_scans(self.data, scan)])
        if len(pieces[::2]) != -(-total // interval) or interval * across > MAX_SIDE:
            return None
        parts = [self.data[: scan.end]]
        for number, piece in enumerate(pieces):
            if number % 2:
                parts.append(b"\xff" + piece)
                continue
            units = min(interval, total - number // 2 * interval)
            parts.append(self._drop_run(piece, _header_of_part(self.data, segments, (units * across, down))))
        return b"".join((*parts, END))

    def _drop_run(self, piece: bytes, header: bytes) -> bytes:
        """Return a restart interval without the repeated last bytes that decoding it does not need."""
        stripped = piece.rstrip(piece[-1:])
        if stripped.endswith(b"\xff") and len(stripped) < len(piece):
            stripped += b"\x00"  # FF 00 is an FF among the pixels

        def suffices(length: int) -> bool:
            try:
                self._decode(header + piece[:length] + END)
            except ValueError as error:
                return CUT_SHORT not in str(error)
            return True

        return piece[: bisect_left(range(len(piece)), True, lo=len(stripped), key=suffices)]

    def _drop_trailing_data(self, segments: Sequence[Segment]) -> bytes | None:
        """Return the file without the bytes between its last pixel and EOI; None if they may be pixels.

        They are not if one byte is repeated, as some cameras write, or if the file had no EOI and they do not look like
        entropy-coded data.
        """
        match = EXTRANEOUS.search(self.problem)
        if match is None or int(match[2], 16) != EOI:
            return None
        end = end_of_scans(self.data, segments[-1])
        start = max(end - int(match[1]), segments[-1].end)
        is_repeated = len(set(self.data[start:end])) == 1
        is_trailing = "eoi_missing" in self.warnings and _is_trailing_data(self.data[:end], start)
        return self.data[:start] + END if is_repeated or is_trailing else None


def _is_trailing_data(data: bytes, start: int) -> bool:
    """Return whether the bytes from `start` look like text, a run or an invalid marker rather than pixels.

    A text must begin near `start`: otherwise its beginning was decoded as pixels.
    """
    text = len(data.rstrip(TEXT))
    if text <= start:
        return start - text <= LOOKAHEAD
    return len(data) - start <= MAX_TRAILING_BYTES or LONG_RUN.search(data, start) is not None


def has_junk(segments: Sequence[Segment]) -> bool:
    """Return whether bytes between the segments of a header belong to none."""
    return any(segment.after_junk for segment in segments)


def rebuild_header(data: bytes, segments: Sequence[Segment], frame: Frame) -> bytes:
    """Return the file with only the header segments that decoding needs.

    Junk between segments, profiles, EXIF and comments are left out; a JFIF segment is replaced; the scan parameters of
    a sequential JPEG, which some cameras leave undefined, are set to the only valid ones.
    """
    parts = [data[:2]]
    for marker, start, end, _ in segments:
        if marker == APP0 and data.startswith(b"JFIF\x00", start, end):
            parts.append(JFIF)
        elif marker == SOS and frame.marker in SEQUENTIAL:
            parts += [data[start - 4 : end - 3], b"\x00\x3f\x00", data[end:]]
        elif marker == SOS:
            parts.append(data[start - 4 :])
        elif marker == APP14:
            # An undefined colour transform is dropped: without an Adobe segment the decoder chooses one.
            if data.startswith(b"Adobe", start, end) and data[end - 1] <= 2:
                parts.append(data[start - 4 : end])
        elif marker != COM and not APP0 <= marker < APP0 + 16:
            parts.append(data[start - 4 : end])
    return b"".join(parts)


def cut_at_marker(data: bytes, header: Segment) -> bytes:
    """Return the file cut at the first marker that ends the scan with this header, with an EOI."""
    found = END_OF_SCAN.search(data, header.end)
    return data[: found.start()] + END if found else data


def _restart_interval(data: bytes, segments: Sequence[Segment]) -> int:
    intervals = [data[start:end] for marker, start, end, _ in segments if marker == DRI and end - start == 2]
    return int.from_bytes(intervals[-1], "big") if intervals else 0


def _header_of_part(data: bytes, segments: Sequence[Segment], size: tuple[int, int]) -> bytes:
    """Return a header for a JPEG of this width and height with the tables of `data`, but without restart intervals."""
    parts = [data[:2]]
    for marker, start, end, _ in segments:
        if marker in SEQUENTIAL:
            parts += [data[start - 4 : start + 1], struct.pack(">HH", size[1], size[0]), data[start + 5 : end]]
        elif marker in {DQT, DHT, SOS}:
            parts.append(data[start - 4 : end])
    return b"".join(parts)
