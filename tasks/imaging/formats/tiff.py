"""TIFF: its first directory, and whether the parts of the picture that it names are there and undamaged."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from typing import NamedTuple

import numpy as np
from PIL import Image, TiffImagePlugin

from darkroom.tasks.errors import ErrorCode, ImageError
from darkroom.tasks.imaging.bands import Pixels, to_array
from darkroom.tasks.imaging.color import round_16_bits, scale_16_bits
from darkroom.tasks.imaging.formats.base import PillowImage
from darkroom.tasks.imaging.formats.jpeg import JpegImage
from darkroom.tasks.imaging.records import Size, SourceFacts

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, STRIPS, ORIENTATION, SAMPLES = 256, 257, 258, 259, 262, 273, 274, 277
STRIP_ROWS, STRIP_BYTES, PLANES, TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES = 278, 279, 284, 322, 323, 324, 325
JPEG_TABLES, XMP = 347, 700

COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 7, 8, 32771, 32773, 32946, 50000})
"""None, CCITT in four kinds, LZW, JPEG, Deflate, PackBits, Zstandard. The others are hardly written any more, and most
of the vulnerabilities of decoders were found in them."""

PLAIN, JPEG, DEFLATE = 1, 7, frozenset({8, 32946})
END_OF_JPEG = b"\xff\xd9"
SEPARATE = 2
"""The value of `PLANES` where each sample of the pixels has strips of its own."""

WHITE_IS_ZERO = 0
"""The value of `PHOTOMETRIC` of inverted gray."""

TYPE_FORMATS = {1: "B", 2: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 13: "I", 16: "Q"}
TYPE_SIZES = {kind: struct.calcsize(letter) for kind, letter in TYPE_FORMATS.items()} | {5: 8, 10: 8, 11: 4, 12: 8}

XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class TiffReader(TiffImagePlugin.TiffImageFile):
    """A reader that turns the picture upright as Pillow does, but without reading all other metadata."""

    is_turned = False
    """Whether the picture has been turned; it may not have been if the file is cut."""

    @property
    def orientation(self) -> int | None:
        """The orientation that the file states, 1..8; None if that is invalid."""
        stated = self.tag_v2.get(ORIENTATION)
        if stated is None:
            packet = self.tag_v2.get(XMP)
            found = XMP_ORIENTATION.search(packet) if isinstance(packet, bytes) else None
            stated = int(found[1]) if found else 1
        return stated if isinstance(stated, int) and 1 <= stated <= 8 else None

    def load_end(self) -> None:
        """Turn the picture that was just decoded."""
        method = TURNS.get(self.orientation or 1)
        if method is not None:
            self.im = self.im.transpose(method)
        self._size = self.im.size
        self.is_turned = True


class Layout:
    """The byte order and the widths of numbers, which depend on whether the file is a BigTIFF."""

    def __init__(self, data: bytes) -> None:
        self.order = "<" if data[:2] == b"II" else ">"
        is_big = b"+" in data[2:4]
        self.offset = struct.Struct(self.order + ("Q" if is_big else "I"))
        self.count = struct.Struct(self.order + ("Q" if is_big else "H"))
        self.entry = struct.Struct(self.order + ("HHQ" if is_big else "HHI"))
        self.first_link = 8 if is_big else 4
        """Where the offset of the first directory is."""

    def directories(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Yield where the entries of each directory start, and how many they are; each directory only once.

        Raises `struct.error` where the chain leads out of the file.
        """
        link, seen = self.first_link, set[int]()
        while True:
            (position,) = self.offset.unpack_from(data, link)
            if position in seen or (seen and position == 0):
                return
            seen.add(position)
            (count,) = self.count.unpack_from(data, position)
            start = position + self.count.size
            yield start, count
            link = start + count * (self.entry.size + self.offset.size)


class Field(NamedTuple):
    """An entry of a directory: its type, how many values it has, and where the first one is."""

    kind: int
    length: int
    position: int


class Directory:
    """The first directory of a TIFF. Raises `struct.error` if the file ends within it."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        layout = Layout(data)
        self._order = layout.order
        self.fields: dict[int, Field] = {}
        position, count = next(layout.directories(data))
        self.end = position + count * (layout.entry.size + layout.offset.size)
        for _ in range(count):
            tag, kind, values = layout.entry.unpack_from(data, position)
            value = position + layout.entry.size
            position = value + layout.offset.size
            if TYPE_SIZES.get(kind, 1) * values > layout.offset.size:
                (value,) = layout.offset.unpack_from(data, value)
            self.fields.setdefault(tag, Field(kind, values, value))

    def values(self, tag: int) -> tuple[int, ...]:
        """Return the whole numbers of a tag; none where it is missing or holds something else."""
        field = self.fields.get(tag)
        if field is None or field.kind not in TYPE_FORMATS:
            return ()
        return struct.unpack_from(f"{self._order}{field.length}{TYPE_FORMATS[field.kind]}", self._data, field.position)

    def value(self, tag: int, default: int) -> int:
        """Return the first whole number of a tag, or the default where the tag is missing.

        Raises `decode.corrupt` if the tag holds something else.
        """
        if tag not in self.fields:
            return default
        values = self.values(tag)
        if not values:
            raise ImageError(ErrorCode.DECODE_CORRUPT, f"TIFF tag {tag} holds no number")
        return values[0]

    @property
    def compression(self) -> int:
        """The compression of the pixels."""
        return self.value(COMPRESSION, 1)

    @property
    def is_tiled(self) -> bool:
        """Whether the parts of the picture are tiles; else they are strips."""
        # Pillow, which reads plain samples, looks for strips first, and libtiff, which reads the rest, for tiles.
        return TILE_WIDTH in self.fields and (STRIPS not in self.fields or self.compression != PLAIN)

    @property
    def part_size(self) -> Size:
        """Width and height of a part in pixels."""
        if self.is_tiled:
            return self.value(TILE_WIDTH, 0), self.value(TILE_HEIGHT, 0)
        height = self.value(HEIGHT, 0)
        return self.value(WIDTH, 0), min(self.value(STRIP_ROWS, height), height)

    @property
    def offsets_tag(self) -> int:
        """The tag that says where the parts start."""
        return TILES if TILES in self.fields and self.is_tiled else STRIPS

    @property
    def parts(self) -> list[tuple[int, int]]:
        """Where each part starts and ends."""
        lengths = self.values(TILE_BYTES if TILE_BYTES in self.fields and self.is_tiled else STRIP_BYTES)
        starts = self.values(self.offsets_tag)
        return [(start, start + length) for start, length in zip(starts, lengths, strict=False)]


class TiffImage(PillowImage):
    """A TIFF or BigTIFF of one or more pages, of which the first is read."""

    name = "tiff"
    signature = re.compile(rb"(?s)(?:II[*+]\0|MM\0[*+])(?!.{4}(?:CR|IIII|MMMM))")
    """Canon's and Phase One's camera raw files begin like a TIFF."""

    reader = TiffReader
    image: TiffReader

    @cached_property
    def directory(self) -> Directory:
        """The first directory; may raise `struct.error` or `OverflowError`."""
        return Directory(self.data)

    def _header_size(self) -> Size | None:
        width, height = self.directory.values(WIDTH), self.directory.values(HEIGHT)
        return (width[0], height[0]) if width and height else None

    def _stored_size(self) -> Size:
        """Return the size before the picture is turned; Pillow reports that afterwards."""
        return self.image.tag_v2[WIDTH], self.image.tag_v2[HEIGHT]

    def _read_orientation(self) -> int | None:
        return self.image.orientation

    def _is_turned(self) -> bool:
        return self.image.is_turned

    def _count_frames(self) -> int:
        pages = 0
        with suppress(struct.error, OverflowError):
            for _ in Layout(self.data).directories(self.data):
                pages += 1
        return max(pages, 1)

    def _lacks_data(self) -> bool:
        return self.directory.end > len(self.data) or any(end > len(self.data) for _, end in self.directory.parts)

    def _check_structure(self) -> None:
        """Raise `ImageError` for what a decoder would not notice.

        `decode.unsupported` for compressions that aren't read, `decode.corrupt` where parts of the picture are missing,
        `decode.truncated` where the directory is.
        """
        try:
            self._check_parts()
        except (struct.error, OverflowError) as error:
            raise ImageError(ErrorCode.DECODE_TRUNCATED, "the file ends before what its directory names") from error

    def _check_parts(self) -> None:
        directory = self.directory
        compression = directory.compression
        if compression not in COMPRESSIONS:
            raise ImageError(ErrorCode.DECODE_UNSUPPORTED, f"TIFF compression {compression} is not supported")
        width, height = directory.value(WIDTH, 0), directory.value(HEIGHT, 0)
        across, down = directory.part_size
        if min(across, down, width, height) <= 0:
            message = f"TIFF of {width} × {height} in parts of {across} × {down} pixels"
            raise ImageError(ErrorCode.DECODE_CORRUPT, message)
        planes = directory.value(SAMPLES, 1) if directory.value(PLANES, 1) == SEPARATE else 1
        needed = -(-width // across) * -(-height // down) * planes
        offsets = directory.fields.get(directory.offsets_tag)
        count = offsets.length if offsets else needed
        # libtiff ignores parts beyond those that are needed, but Pillow lays them over the first ones.
        if count < needed or (count > needed and compression == PLAIN):
            raise ImageError(ErrorCode.DECODE_CORRUPT, f"the TIFF holds {count} of its {needed} parts")
        if compression == PLAIN and any(start == 0 for start, _ in directory.parts):
            raise ImageError(ErrorCode.DECODE_CORRUPT, "parts of the TIFF are nowhere in the file")

    def _check_pixels(self) -> None:
        """Raise `ImageError` for damage that libtiff ignores: wrong checksums, and what JPEG decoders warn of."""
        directory = self.directory
        if directory.compression in DEFLATE:
            for start, end in directory.parts:
                try:
                    zlib.decompressobj().decompress(self.data[start:end])
                except zlib.error as error:
                    raise ImageError(ErrorCode.DECODE_CORRUPT, str(error)) from error
        elif directory.compression == JPEG:
            tables = bytes(directory.values(JPEG_TABLES))
            for start, end in directory.parts:
                # The tables replace the part's start marker. Not every writer puts an end marker.
                part = tables[:-2] + self.data[start + 2 : end] if tables else self.data[start:end]
                JpegImage(part + END_OF_JPEG).check_undamaged(self._check_part_size)

    def _check_part_size(self, facts: SourceFacts) -> None:
        across, down = self.directory.part_size
        if facts.width > across or facts.height > down:
            message = f"a part of {facts.width} × {facts.height} pixels where there is room for {across} × {down}"
            raise ImageError(ErrorCode.DECODE_CORRUPT, message)

    def _to_pixels(self, image: Image.Image, *, whole: bool) -> Pixels:
        """Return the pixels as `PillowImage._to_pixels` does, but with the depth and meaning that the tags state."""
        tags = getattr(image, "tag_v2", {})
        bits = tags.get(BITS, (16,))
        if image.mode.startswith("I;16"):
            pixels = scale_16_bits(to_array(image), (1 << bits[0]) - 1)
            if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
                return np.subtract(255, pixels, dtype=np.uint8)
            return pixels
        pixels = super()._to_pixels(image, whole=whole)
        if whole and image.mode == "RGB" and bits == (16, 16, 16):
            image.close()
            return round_16_bits(self.data, pixels)
        return pixels
