"""Repairs of JPEGs whose pixels are all there: afterwards, the decoder must not complain of anything."""

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

HEADER_COMPLAINT = re.compile(
    r"bad ICC marker|JFIF revision|Adobe color transform|Invalid SOS parameters|"
    r"extraneous bytes before marker 0x(e|c|da|db|dd|fe)"
)
"""Complaints of the decoder that may say nothing about the pixels."""

EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
CUT_SHORT = "premature end of data segment"
"""The decoder's complaint of a scan, or a part of one, that ends before its last pixel."""

LONG_REMAINDER = 1024
"""So many bytes without an invalid marker, a run or a text are most likely entropy-coded data."""

LOOKAHEAD = 12
"""The decoder reads a few bytes ahead, which it does not count as extraneous."""

MAX_SIDE = 65500
"""Pixels that the decoder accepts in a row."""

Decode = Callable[[bytes], Pixels]
"""Returns a JPEG's samples; raises `ValueError` if there is anything to complain of."""


class Repair:
    """The repair of a JPEG in steps, each of which the decoder then tries.

    `data` is the file as far as it is repaired, `complaint` what the decoder says of it, `warnings` what was done.
    """

    def __init__(self, data: bytes, frame: Frame, complaint: str, decode: Decode) -> None:
        self.data = data
        self.complaint = complaint
        self.warnings: list[str] = []
        self._frame = frame
        self._decode = decode

    def run(self) -> Pixels:
        """Return the samples of the repaired file; raise `ValueError` if the decoder still complains."""
        for warning, step in (
            ("header_repaired", self._rebuild_header),
            ("eoi_missing", self._close),
            ("extraneous_data", self._drop_padding),
            ("extraneous_data", self._drop_remainder),
        ):
            repaired = step(list(walk_segments(self.data)))
            if repaired is None or repaired == self.data:
                continue
            self.data = repaired
            self.warnings.append(warning)
            try:
                return self._decode(self.data)
            except ValueError as error:
                self.complaint = str(error)
        raise ValueError(self.complaint)

    def _rebuild_header(self, segments: Sequence[Segment]) -> bytes | None:
        if HEADER_COMPLAINT.search(self.complaint) or has_junk(segments):
            return rebuild_header(self.data, segments, self._frame)
        return None

    def _close(self, segments: Sequence[Segment]) -> bytes | None:
        """Return a file that has no EOI with one, and without what follows its scans.

        A run of one byte at the end is dropped: an interrupted copy to a file of the right length ends like this, and
        decoders take zeros for pixels.
        """
        end = end_of_scans(self.data, segments[-1])
        if self.data.startswith(END, end):
            return None
        stripped = self.data[:end].rstrip(self.data[end - 1 : end])
        return self.data[: end if end - len(stripped) == 1 else max(len(stripped), segments[-1].end)] + END

    def _drop_padding(self, segments: Sequence[Segment]) -> bytes | None:
        """Return a file without the bytes, one repeated, that end its restart intervals.

        The last byte of an interval's pixels may be equal to the padding, so each interval is decoded for itself.
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
        """Return a restart interval without those last bytes of one value that its pixels do not need."""
        stripped = piece.rstrip(piece[-1:])
        if stripped.endswith(b"\xff") and len(stripped) < len(piece):
            stripped += b"\x00"  # an FF among the pixels, not a marker

        def suffices(length: int) -> bool:
            try:
                self._decode(header + piece[:length] + END)
            except ValueError as error:
                return CUT_SHORT not in str(error)
            return True

        return piece[: bisect_left(range(len(piece)), True, lo=len(stripped), key=suffices)]

    def _drop_remainder(self, segments: Sequence[Segment]) -> bytes | None:
        """Return a file without what lies between its last pixel and EOI, unless that may be pixels.

        Pixels that the decoder could not follow are entropy-coded data. One byte repeated, as some cameras write, is
        none. In a file that had no EOI, anything is accepted that does not look like entropy-coded data.
        """
        match = EXTRANEOUS.search(self.complaint)
        if match is None or int(match[2], 16) != EOI:
            return None
        end = end_of_scans(self.data, segments[-1])
        start = max(end - int(match[1]), segments[-1].end)
        remainder = self.data[start:end]
        is_foreign = "eoi_missing" in self.warnings and _is_foreign(self.data[:end], start)
        return self.data[:start] + END if is_foreign or len(set(remainder)) == 1 else None


def _is_foreign(data: bytes, start: int) -> bool:
    """Return whether what follows the pixels does not look like more of them, and was not taken for pixels itself."""
    text = len(data.rstrip(TEXT))
    if text <= start:
        return start - text <= LOOKAHEAD
    return len(data) - start <= LONG_REMAINDER or LONG_RUN.search(data, start) is not None


def has_junk(segments: Sequence[Segment]) -> bool:
    """Return whether there is anything between the segments of a header that belongs to nothing."""
    return any(segment.after_junk for segment in segments)


def rebuild_header(data: bytes, segments: Sequence[Segment], frame: Frame) -> bytes:
    """Return the file with only those header segments that decoding needs, so that decoders accept it.

    Junk between segments, profiles, EXIF and comments are left out; a JFIF segment is written anew; the scan
    parameters of a sequential JPEG, which some cameras leave undefined, are set to the only valid ones.
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
            # Without an Adobe segment the decoder chooses a colour transform; an undefined one is dropped.
            if data.startswith(b"Adobe", start, end) and data[end - 1] <= 2:
                parts.append(data[start - 4 : end])
        elif marker != COM and not APP0 <= marker < APP0 + 16:
            parts.append(data[start - 4 : end])
    return b"".join(parts)


def cut_at_marker(data: bytes, header: Segment) -> bytes:
    """Return the file up to the first marker that ends a scan, whatever it is, and an EOI."""
    found = END_OF_SCAN.search(data, header.end)
    return data[: found.start()] + END if found else data


def _restart_interval(data: bytes, segments: Sequence[Segment]) -> int:
    intervals = [data[start:end] for marker, start, end, _ in segments if marker == DRI and end - start == 2]
    return int.from_bytes(intervals[-1], "big") if intervals else 0


def _header_of_part(data: bytes, segments: Sequence[Segment], size: tuple[int, int]) -> bytes:
    """Return the header of a JPEG of this size in pixels, with the tables of another, without restart markers."""
    parts = [data[:2]]
    for marker, start, end, _ in segments:
        if marker in SEQUENTIAL:
            parts += [data[start - 4 : start + 1], struct.pack(">HH", size[1], size[0]), data[start + 5 : end]]
        elif marker in {DQT, DHT, SOS}:
            parts.append(data[start - 4 : end])
    return b"".join(parts)
