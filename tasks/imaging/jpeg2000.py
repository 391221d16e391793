"""JPEG 2000: what its codestream asks of a decoder, and whether all of its tiles are there."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from tasks.errors import ErrorCode, ImageError
from tasks.imaging.limits import MAX_PARTS

START = b"\xff\x4f\xff\x51"
COD, COC, POC, SOT, SOD, EOC = 0xFF52, 0xFF53, 0xFF5F, 0xFF90, 0xFF93, 0xFFD9
CODING = frozenset({COD, COC, POC})
WHOLE = 0xFF
"""The exponents of precincts that are as large as can be."""

MAX_COMPONENTS = 4
MAX_STYLES = 1000
"""Different descriptions of how tiles are coded."""

MIN_BLOCK_SAMPLES = 64
"""Samples for each code-block and precinct, on average; encoders give them a thousand and more. A decoder keeps
hundreds of bytes for each."""

FREE_BLOCKS = 20_000
MAX_STEPS = 100_000_000
"""Layers times code-blocks and precincts: a decoder visits each in each layer, even if nothing is there."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Size of the picture and of a tile, and the components' steps; in pixels of the reference grid."""

    width: int
    height: int
    tile_width: int
    tile_height: int
    tiles: int
    steps: tuple[tuple[int, int], ...]


class Codestream:
    """The headers of a JPEG 2000 file.

    Raises `ImageError`: `decode.truncated` if they are not all there, `decode.corrupt` or `decode.unsupported` if
    no decoder reads them.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._start = _find_codestream(data)
        if not data.startswith(START, self._start):
            raise ImageError(ErrorCode.DECODE_TRUNCATED, "the file ends before its codestream")
        self.styles: set[tuple[int, bytes]] = set()
        self.seen: set[int] = set()
        try:
            self.frame = self._read_frame()
            self.end = self._read_markers()
        except (struct.error, ZeroDivisionError) as error:
            raise ImageError(ErrorCode.DECODE_TRUNCATED, "the file ends within its headers") from error

    def _read_frame(self) -> Frame:
        values = struct.unpack_from(">8IH", self._data, self._start + 8)
        right, bottom, left, top, tile_width, tile_height, tile_left, tile_top, components = values
        if components > MAX_COMPONENTS:
            raise ImageError(ErrorCode.DECODE_UNSUPPORTED, f"JPEG 2000 of {components} components is not supported")
        tiles = -(-(right - tile_left) // tile_width) * -(-(bottom - tile_top) // tile_height)
        fields = struct.unpack_from(f">{3 * components}B", self._data, self._start + 42)
        steps = tuple(zip(fields[1::3], fields[2::3], strict=True))
        if not all(map(all, steps)):
            raise ZeroDivisionError
        return Frame(right - left, bottom - top, tile_width, tile_height, tiles, steps)

    def _read_markers(self) -> int:
        """Collect how the picture is coded, and which tiles there are; returns where the last one ends."""
        position = self._read_header(self._start + 2)
        for _ in range(MAX_PARTS):
            if self._data[position : position + 2] != SOT.to_bytes(2, "big") or position + 12 > len(self._data):
                return position
            tile, length = struct.unpack_from(">HI", self._data, position + 4)
            self.seen.add(tile)
            self._read_header(position + 12)
            if not length:  # to the end
                return len(self._data)
            position += max(length, 12)
        raise ImageError(ErrorCode.DECODE_CORRUPT, f"JPEG 2000 of more than {MAX_PARTS} parts")

    def _read_header(self, position: int) -> int:
        """Read markers up to the first one that is followed by data or by a tile, and return where it is."""
        while position + 4 <= len(self._data):
            marker, length = struct.unpack_from(">HH", self._data, position)
            if marker in {SOT, SOD, EOC} or length < 2:
                break
            if marker in CODING:
                self.styles.add((marker, self._data[position + 4 : position + 2 + length]))
                if len(self.styles) > MAX_STYLES:
                    raise ImageError(ErrorCode.DECODE_UNSUPPORTED, f"JPEG 2000 of over {MAX_STYLES} coding styles")
            position += 2 + length
        return position

    def count_blocks(self, style: bytes) -> int:
        """Count code-blocks and precincts, as if all tiles and components were coded in one style.

        `style` is what COD and COC end with: levels, exponents of the code-blocks, two more, and of precincts.
        """
        frame, levels = self.frame, style[0]
        block_width, block_height = style[1] + 2, style[2] + 2
        total = 0
        for level in range(levels + 1):
            precinct = style[5 + level] if len(style) > 5 else WHOLE
            across, down = precinct & 15, precinct >> 4
            for step_x, step_y in frame.steps:
                # Of the resolutions the largest comes last; each before it is half as large.
                width = -(-min(frame.tile_width, frame.width) // (step_x << (levels - level)))
                height = -(-min(frame.tile_height, frame.height) // (step_y << (levels - level)))
                total += _cells(width, across) * _cells(height, down)
                total += _cells(width, min(block_width, across)) * _cells(height, min(block_height, down))
        return total * frame.tiles


def _cells(length: int, exponent: int) -> int:
    return -(-length // (1 << exponent))


def _find_codestream(data: bytes) -> int:
    """Return where the codestream starts, or the end of the file where there is none."""
    position = 0
    if data.startswith(START):
        return position
    for _ in range(MAX_PARTS):
        if position + 8 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"jp2c":
            return position + (16 if length == 1 else 8)
        if length == 1 and position + 16 <= len(data):
            (length,) = struct.unpack_from(">Q", data, position + 8)
        if length < 8:
            break
        position += length
    return len(data)


def refuse_costly_jpeg2000(data: bytes) -> None:
    """Raise `decode.unsupported` for a picture whose pieces cost a decoder far more than its pixels do.

    A file of 270 bytes can ask for gigabytes, and for minutes.
    """
    stream = Codestream(data)
    blocks, layers, orders = 0, 1, 1
    try:
        for marker, style in stream.styles:
            if marker == COD:
                layers = max(layers, int.from_bytes(style[2:4], "big"))
                blocks = max(blocks, stream.count_blocks(style[5:] if style[0] & 1 else style[5:10]))
            elif marker == COC:
                blocks = max(blocks, stream.count_blocks(style[2:] if style[1] & 1 else style[2:7]))
            else:
                orders += len(style) // 7
    except IndexError as error:
        raise ImageError(ErrorCode.DECODE_CORRUPT, "JPEG 2000 coding style that is too short") from error
    samples = stream.frame.width * stream.frame.height * len(stream.frame.steps)
    if blocks > samples // MIN_BLOCK_SAMPLES + FREE_BLOCKS or blocks * layers * orders > MAX_STEPS:
        message = f"JPEG 2000 of {blocks} blocks in {layers} layers is not supported"
        raise ImageError(ErrorCode.DECODE_UNSUPPORTED, message)


def lacks_tiles(data: bytes) -> bool:
    """Tell whether a tile, or the end of one, is missing; decoders leave it black without a word."""
    stream = Codestream(data)
    return stream.end > len(data) or len(stream.seen) < stream.frame.tiles
