"""The directories of a TIFF: which one is the picture, what its tags say, and writing it anew for a decoder."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice
from typing import NamedTuple

from darkroom.tasks.errors import ErrorCode, ImageError
from darkroom.tasks.imaging.records import Size

NEW_SUBFILE_TYPE, SUBFILE_TYPE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 254, 255, 256, 257, 258, 259, 262
MAKE, STRIPS, ORIENTATION, SAMPLES, STRIP_ROWS, STRIP_BYTES, MAX_SAMPLE = 271, 273, 274, 277, 278, 279, 281
PLANES, PREDICTOR, TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES, SUB_DIRECTORIES = 284, 317, 322, 323, 324, 325, 330
SAMPLE_FORMAT, MAX_OF_FORMAT, JPEG_TABLES, XMP, ICC_PROFILE, DNG_VERSION = 339, 341, 347, 700, 34675, 50706

PLAIN = 1
"""The value of `COMPRESSION` of samples as they are."""

REDUCED, REDUCED_OR_MASK = 2, 1 | 4
"""The value of `SUBFILE_TYPE` of a reduced copy, and the bits of `NEW_SUBFILE_TYPE` of that or of a mask."""

NEEDED = frozenset(range(NEW_SUBFILE_TYPE, JPEG_TABLES + 1)) - {SUB_DIRECTORIES} | {*range(529, 533), XMP, ICC_PROFILE}
"""The tags that are written anew: those that say what the pixels are."""

TYPE_FORMATS = {1: "B", 2: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 13: "I", 16: "Q", 18: "Q"}
TYPE_SIZES = {kind: struct.calcsize(letter) for kind, letter in TYPE_FORMATS.items()} | {5: 8, 10: 8, 11: 4, 12: 8}
LONG, LONG8 = 4, frozenset({16, 18})

MAX_DIRECTORIES = 64
"""How many pages, and how many pictures beside each, are searched for the picture."""

COLOR_FILTER_ARRAY = frozenset({32803, 34892})
"""Values of `PHOTOMETRIC` of a sensor's samples."""

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
"""Names of camera raw formats by how the maker's name begins."""


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
        self.is_big_endian_bigtiff = is_big and self.order == ">"

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
    """The directory of a TIFF whose `count` entries begin at `position`.

    Raises `struct.error` if the file ends within it.
    """

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
        """Return the whole numbers of a tag; none where it is missing or holds something else."""
        field = self.fields.get(tag)
        if field is None or field.kind not in TYPE_FORMATS:
            return ()
        return struct.unpack_from(f"{self.order}{field.length}{TYPE_FORMATS[field.kind]}", self._data, field.position)

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
    def is_reduced(self) -> bool:
        """Whether the directory says that it is a reduced copy of another picture, or a mask for one."""
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
    def lengths_tag(self) -> int:
        """The tag that says how many bytes the parts have."""
        return TILE_BYTES if TILE_BYTES in self.fields and self.is_tiled else STRIP_BYTES

    @property
    def parts(self) -> list[tuple[int, int]]:
        """Where each part starts and ends."""
        lengths = self.values(self.lengths_tag)
        starts = self.values(self.offsets_tag)
        return [(start, start + length) for start, length in zip(starts, lengths, strict=False)]


def _beside(data: bytes, page: Directory) -> Iterator[Directory]:
    """Yield the directories of the pictures that a page names beside itself, as far as they can be read."""
    layout = Layout(data)
    with suppress(struct.error, OverflowError):
        for link in page.values(SUB_DIRECTORIES)[:MAX_DIRECTORIES]:
            (count,) = layout.count.unpack_from(data, link)
            yield Directory(data, link + layout.count.size, count)


def picture_directory(data: bytes) -> Directory:
    """Return the first directory that is no reduced copy of another picture; the first of all if there is none.

    Raises `struct.error` or `OverflowError` if the first can't be read.
    """
    places = islice(Layout(data).directories(data), MAX_DIRECTORIES)
    first = Directory(data, *next(places))
    if first.is_reduced:
        with suppress(struct.error, OverflowError):
            for page in chain([first], (Directory(data, *place) for place in places)):
                for each in chain([page], _beside(data, page)):
                    if not each.is_reduced:
                        return each
    return first


def camera_raw(data: bytes) -> str:
    """Return the name of the camera raw format that a file is in; empty for other TIFFs.

    Raises `struct.error` or `OverflowError` if the first directory can't be read.
    """
    first = Directory(data, *next(Layout(data).directories(data)))
    if DNG_VERSION in first.fields:
        return "DNG"
    for directory in chain([first], _beside(data, first)):
        with suppress(struct.error):
            if COLOR_FILTER_ARRAY.intersection(directory.values(PHOTOMETRIC)):
                maker = bytes(value & 0xFF for value in first.values(MAKE)[:20]).upper()
                names = (name for start, name in RAW_NAMES.items() if maker.startswith(start))
                return next(names, "of a kind unknown here")
    return ""


def rewritten(data: bytes, directory: Directory, changes: Mapping[int, Sequence[int]], body: bytes = b"") -> bytes:
    """Return the file as a TIFF of 32-bit offsets whose only directory is this one, followed by `body`.

    `changes` replaces tags by numbers, or removes them where it has none. `body` begins at the length of `data`.
    Raises `decode.corrupt` for tags that are larger than the file, and `struct.error` for offsets beyond 4 GB.
    """
    order = directory.order
    packed = {tag: (LONG, len(new), struct.pack(f"{order}{len(new)}I", *new)) for tag, new in changes.items()}
    total = 0
    for tag, (kind, length, position) in directory.fields.items():
        if tag in NEEDED and tag not in changes and kind in TYPE_SIZES:
            total += TYPE_SIZES[kind] * length
            if total > len(data):
                raise ImageError(ErrorCode.DECODE_CORRUPT, "the TIFF is damaged: its tags are larger than the file")
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
