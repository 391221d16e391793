"""The directories (IFDs) of a TIFF: find the picture's, read its tags, and rewrite it for a decoder.

A directory is a list of entries, each a tag with its values; it ends with the offset of the next directory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice
from typing import NamedTuple

from darkroom.tasks.imaging.failures import corrupt
from darkroom.tasks.imaging.records import Size

NEW_SUBFILE_TYPE, SUBFILE_TYPE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 254, 255, 256, 257, 258, 259, 262
MAKE, STRIPS, ORIENTATION, SAMPLES, STRIP_ROWS, STRIP_BYTES, MAX_SAMPLE = 271, 273, 274, 277, 278, 279, 281
PLANES, PREDICTOR, TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES, SUB_DIRECTORIES = 284, 317, 322, 323, 324, 325, 330
SAMPLE_FORMAT, MAX_OF_FORMAT, JPEG_TABLES, XMP, ICC_PROFILE, DNG_VERSION = 339, 341, 347, 700, 34675, 50706

PLAIN = 1
"""The value of `COMPRESSION` for uncompressed samples."""

REDUCED, REDUCED_OR_MASK = 2, 1 | 4
"""The value of `SUBFILE_TYPE` for a reduced copy; the bits of `NEW_SUBFILE_TYPE` for a reduced copy and for a mask."""

NEEDED = frozenset(range(NEW_SUBFILE_TYPE, JPEG_TABLES + 1)) - {SUB_DIRECTORIES} | {*range(529, 533), XMP, ICC_PROFILE}
"""The tags that `rewritten` keeps: those that determine pixels, colours or orientation."""

TYPE_FORMATS = {1: "B", 2: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 13: "I", 16: "Q", 18: "Q"}
TYPE_SIZES = {kind: struct.calcsize(letter) for kind, letter in TYPE_FORMATS.items()} | {5: 8, 10: 8, 11: 4, 12: 8}
LONG, LONG8 = 4, frozenset({16, 18})

MAX_SEARCHED = 64
"""Upper limit on the pages, and on the sub-directories of each, that are searched for the picture."""

COLOR_FILTER_ARRAY = frozenset({32803, 34892})
"""Values of `PHOTOMETRIC` for unprocessed samples of a camera's sensor."""

RAW_NAMES = {
    b"NIKON": "NEF",
    b"SONY": "ARW",
    b"PENTAX": "PEF",
    b"RICOH": "PEF",
    b"SAMSUNG": "SRW",
    b"HASSELBLAD": "3FR",
    b"EPSON": "ERF",
    b"KODAK": "DCR",
    b"EASTMAN": "DCR",
    b"CANON": "CR2",
}
"""Names of camera raw formats by the beginning of the maker's name."""


class Layout:
    """The byte order of a file, and the layout of its numbers, which have more bits in a BigTIFF."""

    def __init__(self, data: bytes) -> None:
        self.order = "<" if data[:2] == b"II" else ">"
        is_big = b"+" in data[2:4]
        self.offset = struct.Struct(self.order + ("Q" if is_big else "I"))
        self.count = struct.Struct(self.order + ("Q" if is_big else "H"))
        self.entry = struct.Struct(self.order + ("HHQ" if is_big else "HHI"))
        self.first_link = 8 if is_big else 4
        """Position of the offset of the first directory."""

        self.is_big_endian_bigtiff = is_big and self.order == ">"

    def directories(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Yield the position and the number of the entries of each directory, until one is repeated.

        Raises `struct.error` if the chain leads beyond the end of the file.
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
    """The values of a tag: their type, their number, and the position of the first."""

    kind: int
    length: int
    position: int


class Directory:
    """A directory whose `count` entries begin at `position`; raises `struct.error` if the file ends within it."""

    def __init__(self, data: bytes, position: int, count: int) -> None:
        self._data = data
        layout = Layout(data)
        self.order = layout.order
        self.position = position
        self.fields: dict[int, Field] = {}
        self.end = position + count * (layout.entry.size + layout.offset.size)
        for _ in range(count):
            tag, kind, values = layout.entry.unpack_from(data, position)
            value = position + layout.entry.size
            position = value + layout.offset.size
            if TYPE_SIZES.get(kind, 1) * values > layout.offset.size:
                (value,) = layout.offset.unpack_from(data, value)
            self.fields.setdefault(tag, Field(kind, values, value))

    def values(self, tag: int) -> tuple[int, ...]:
        """Return the integers of a tag; none if it is missing or has another type."""
        field = self.fields.get(tag)
        if field is None or field.kind not in TYPE_FORMATS:
            return ()
        return struct.unpack_from(f"{self.order}{field.length}{TYPE_FORMATS[field.kind]}", self._data, field.position)

    def value(self, tag: int, default: int) -> int:
        """Return the first integer of a tag, or `default` if it is missing; raise `decode.corrupt` for other types."""
        if tag not in self.fields:
            return default
        values = self.values(tag)
        if not values:
            raise corrupt(f"the TIFF is damaged: its tag {tag} holds no integer")
        return values[0]

    @property
    def is_reduced(self) -> bool:
        """Whether the directory is marked as a reduced copy of another picture, or as a mask."""
        with suppress(struct.error):
            kinds = (*self.values(NEW_SUBFILE_TYPE)[:1], 0)
            return bool(kinds[0] & REDUCED_OR_MASK) or self.values(SUBFILE_TYPE)[:1] == (REDUCED,)
        return False

    @property
    def compression(self) -> int:
        """The compression of the pixels."""
        return self.value(COMPRESSION, 1)

    @property
    def is_tiled(self) -> bool:
        """Whether the parts of the picture are tiles, not strips."""
        # If there are both, Pillow, which reads uncompressed samples, prefers strips; libtiff, for the rest, tiles.
        return TILE_WIDTH in self.fields and (STRIPS not in self.fields or self.compression != PLAIN)

    @property
    def part_size(self) -> Size:
        """Width and height in pixels of a strip or tile."""
        if self.is_tiled:
            return self.value(TILE_WIDTH, 0), self.value(TILE_HEIGHT, 0)
        height = self.value(HEIGHT, 0)
        return self.value(WIDTH, 0), min(self.value(STRIP_ROWS, height), height)

    @property
    def offsets_tag(self) -> int:
        """The tag with the start of each strip or tile."""
        return TILES if TILES in self.fields and self.is_tiled else STRIPS

    @property
    def lengths_tag(self) -> int:
        """The tag with the number of bytes of each strip or tile."""
        return TILE_BYTES if TILE_BYTES in self.fields and self.is_tiled else STRIP_BYTES

    @property
    def parts(self) -> list[tuple[int, int]]:
        """The start and end of each strip or tile."""
        places = zip(self.values(self.offsets_tag), self.values(self.lengths_tag), strict=False)
        return [(start, start + length) for start, length in places]


def _sub_directories(data: bytes, page: Directory) -> Iterator[Directory]:
    """Yield the sub-directories of a page, up to the first that can't be read."""
    layout = Layout(data)
    with suppress(struct.error, OverflowError):
        for link in page.values(SUB_DIRECTORIES)[:MAX_SEARCHED]:
            (count,) = layout.count.unpack_from(data, link)
            yield Directory(data, link + layout.count.size, count)


def picture_directory(data: bytes) -> Directory:
    """Return the first directory, or sub-directory, that is no reduced copy; the first directory if all are.

    Raises `struct.error` or `OverflowError` if the first can't be read.
    """
    places = islice(Layout(data).directories(data), MAX_SEARCHED)
    first = Directory(data, *next(places))
    if first.is_reduced:
        with suppress(struct.error, OverflowError):
            for page in chain([first], (Directory(data, *place) for place in places)):
                for each in chain([page], _sub_directories(data, page)):
                    if not each.is_reduced:
                        return each
    return first


def camera_raw(data: bytes) -> str:
    """Return the name of a file's camera raw format; empty if it is another kind of TIFF.

    Raises `struct.error` or `OverflowError` if the first directory can't be read.
    """
    first = Directory(data, *next(Layout(data).directories(data)))
    if DNG_VERSION in first.fields:
        return "DNG"
    for directory in chain([first], _sub_directories(data, first)):
        with suppress(struct.error):
            if COLOR_FILTER_ARRAY.intersection(directory.values(PHOTOMETRIC)):
                maker = bytes(value & 0xFF for value in first.values(MAKE)[:20]).upper()
                names = (name for start, name in RAW_NAMES.items() if maker.startswith(start))
                return next(names, "of a kind unknown here")
    return ""


def rewritten(data: bytes, directory: Directory, changes: Mapping[int, Sequence[int]], body: bytes = b"") -> bytes:
    """Return the file as a TIFF (32-bit offsets) with this directory only; `body` begins at the length of `data`.

    `changes` maps tags to their new integers; a tag without any is removed. Raises `decode.corrupt` for tags that are
    larger than the file, and `struct.error` for offsets beyond 4 GB.
    """
    order = directory.order
    packed = {tag: (LONG, len(new), struct.pack(f"{order}{len(new)}I", *new)) for tag, new in changes.items()}
    total = 0
    for tag, (kind, length, position) in directory.fields.items():
        if tag in NEEDED and tag not in changes and kind in TYPE_SIZES:
            total += TYPE_SIZES[kind] * length
            if total > len(data):
                raise corrupt("the TIFF is damaged: its tags are larger than the file")
            if kind in LONG8:
                packed[tag] = (LONG, length, struct.pack(f"{order}{length}I", *directory.values(tag)))
            else:
                packed[tag] = (kind, length, data[position : position + TYPE_SIZES[kind] * length])
    contents, table = bytearray(body), b""
    contents += bytes(len(data) + len(contents) & 1)
    for tag, (kind, length, content) in sorted(packed.items()):
        if not length:
            continue
        field = content
        if len(content) > 4:
            field = struct.pack(order + "I", len(data) + len(contents))
            contents += content + bytes(len(content) & 1)
        table += struct.pack(order + "HHI", tag, kind, length) + field.ljust(4, b"\0")
    header = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, len(data) + len(contents))
    entries = struct.pack(order + "H", len(table) // 12) + table + bytes(4)
    return b"".join((header, memoryview(data)[8:], contents, entries))
