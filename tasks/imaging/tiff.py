"""TIFF: its first directory, and whether what that asks of a decoder is there."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from darkroom.tasks.errors import ErrorCode, ImageError
from darkroom.tasks.imaging.jpeg import refuse_damaged_jpeg

WIDTH, HEIGHT, COMPRESSION, STRIPS, SAMPLES, STRIP_ROWS, STRIP_BYTES = 256, 257, 259, 273, 277, 278, 279
PLANES, TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES, JPEG_TABLES = 284, 322, 323, 324, 325, 347

COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 7, 8, 32771, 32773, 32946, 50000})
"""None, CCITT in four kinds, LZW, JPEG, Deflate, PackBits, Zstandard. Left out is what nobody writes any more, and
where most of the holes in decoders were found."""

PLAIN, JPEG, DEFLATE = 1, 7, frozenset({8, 32946})
END_OF_JPEG = b"\xff\xd9"
SEPARATE = 2
"""The value of `PLANES` where each sample of the pixels has strips of its own."""

TYPE_FORMATS = {1: "B", 2: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 13: "I", 16: "Q"}
TYPE_SIZES = {kind: struct.calcsize(letter) for kind, letter in TYPE_FORMATS.items()} | {5: 8, 10: 8, 11: 4, 12: 8}


@dataclass(frozen=True, slots=True)
class Field:
    """An entry of a directory: its type, how many values it has, and where the first one is."""

    kind: int
    count: int
    position: int


class Directory:
    """The first directory of a TIFF. Raises `struct.error` where it is not wholly there."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._order, big = _layout(data)
        offset, entry, inline = ("Q", "HHQ", 8) if big else ("I", "HHI", 4)
        self.fields: dict[int, Field] = {}
        position = _first_directory(data)
        (count,) = struct.unpack_from(self._order + ("Q" if big else "H"), data, position)
        position += 8 if big else 2
        for _ in range(count):
            tag, kind, values = struct.unpack_from(self._order + entry, data, position)
            value = position + struct.calcsize(self._order + entry)
            position = value + inline
            if TYPE_SIZES.get(kind, 1) * values > inline:
                (value,) = struct.unpack_from(self._order + offset, data, value)
            self.fields.setdefault(tag, Field(kind, values, value))

    def values(self, tag: int) -> tuple[int, ...]:
        """Return the whole numbers of a tag; none where it is missing or holds something else."""
        field = self.fields.get(tag)
        if field is None or field.kind not in TYPE_FORMATS:
            return ()
        return struct.unpack_from(f"{self._order}{field.count}{TYPE_FORMATS[field.kind]}", self._data, field.position)

    def value(self, tag: int, default: int) -> int:
        """Return the first whole number of a tag, or the default where the tag is missing.

        Raises `ImageError`, `decode.corrupt`, if the tag holds something else.
        """
        field = self.fields.get(tag)
        if field is None:
            return default
        values = self.values(tag)
        if not values:
            raise ImageError(ErrorCode.DECODE_CORRUPT, f"TIFF tag {tag} holds no number")
        return values[0]

    @property
    def compression(self) -> int:
        """How the pixels are packed."""
        return self.value(COMPRESSION, 1)

    @property
    def is_tiled(self) -> bool:
        """Whether the parts of the picture are tiles; else they are strips."""
        # Pillow, which reads plain samples, looks for strips first, and libtiff, which reads the rest, for tiles.
        return TILE_WIDTH in self.fields and (STRIPS not in self.fields or self.compression != PLAIN)

    @property
    def part_size(self) -> tuple[int, int]:
        """Width and height of a part in pixels."""
        if self.is_tiled:
            return self.value(TILE_WIDTH, 0), self.value(TILE_HEIGHT, 0)
        height = self.value(HEIGHT, 0)
        return self.value(WIDTH, 0), min(self.value(STRIP_ROWS, height), height)

    @property
    def parts(self) -> list[tuple[int, int]]:
        """Where each part starts and ends."""
        starts = self.values(TILES if TILES in self.fields and self.is_tiled else STRIPS)
        lengths = self.values(TILE_BYTES if TILE_BYTES in self.fields and self.is_tiled else STRIP_BYTES)
        return [(start, start + length) for start, length in zip(starts, lengths, strict=False)]


def tiff_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height in pixels; None if the directory does not say."""
    directory = Directory(data)
    width, height = directory.values(WIDTH), directory.values(HEIGHT)
    return (width[0], height[0]) if width and height else None


def refuse_incomplete_tiff(data: bytes) -> None:
    """Raise `ImageError` for what a decoder would not notice.

    `decode.unsupported` for compressions that aren't read, `decode.corrupt` where parts of the picture are missing,
    `decode.truncated` where the directory is.
    """
    try:
        _refuse_incomplete(Directory(data))
    except (struct.error, OverflowError) as error:
        raise ImageError(ErrorCode.DECODE_TRUNCATED, "the file ends before what its directory names") from error


def _refuse_incomplete(directory: Directory) -> None:
    if directory.compression not in COMPRESSIONS:
        message = f"TIFF compression {directory.compression} is not supported"
        raise ImageError(ErrorCode.DECODE_UNSUPPORTED, message)
    width, height = directory.value(WIDTH, 0), directory.value(HEIGHT, 0)
    across, down = directory.part_size
    if min(across, down, width, height) <= 0:
        raise ImageError(ErrorCode.DECODE_CORRUPT, f"TIFF of {width} × {height} in parts of {across} × {down} pixels")
    planes = directory.value(SAMPLES, 1) if directory.value(PLANES, 1) == SEPARATE else 1
    wanted = -(-width // across) * -(-height // down) * planes
    there = directory.fields.get(TILES if TILES in directory.fields and directory.is_tiled else STRIPS)
    # More than are wanted libtiff leaves alone, but Pillow lays the rest over the first ones.
    if there is not None and (there.count < wanted or (there.count > wanted and directory.compression == PLAIN)):
        raise ImageError(ErrorCode.DECODE_CORRUPT, f"the TIFF holds {there.count} of its {wanted} parts")
    if directory.compression == PLAIN and any(start == 0 for start, _ in directory.parts):
        raise ImageError(ErrorCode.DECODE_CORRUPT, "parts of the TIFF are nowhere in the file")


def lacks_parts(data: bytes) -> bool:
    """Tell whether the file is shorter than its directory says."""
    order, big = _layout(data)
    start = _first_directory(data)
    (entries,) = struct.unpack_from(order + ("Q" if big else "H"), data, start)
    if start + (8 + 20 * entries if big else 2 + 12 * entries) > len(data):
        return True
    return any(end > len(data) for _, end in Directory(data).parts)


def refuse_damaged_parts(data: bytes) -> None:
    """Raise `ImageError` for damage that libtiff passes over: wrong checksums, and what JPEG decoders warn of."""
    directory = Directory(data)
    across, down = directory.part_size
    if directory.compression in DEFLATE:
        for start, end in directory.parts:
            try:
                zlib.decompressobj().decompress(data[start:end])
            except zlib.error as error:
                raise ImageError(ErrorCode.DECODE_CORRUPT, str(error)) from error
    elif directory.compression == JPEG:
        tables = bytes(directory.values(JPEG_TABLES))
        for start, end in directory.parts:
            # A part's own start marker gives way to that of the tables; not every writer ends it with a marker.
            part = tables[:-2] + data[start + 2 : end] if tables else data[start:end]
            refuse_damaged_jpeg(part + END_OF_JPEG, (across, down))


def count_tiff_pages(data: bytes) -> int:
    """Count a TIFF's directories by their chain; 1 where it is too damaged to say."""
    order, big = _layout(data)
    offset_type, count_type, entry_size = ("Q", "Q", 20) if big else ("I", "H", 12)
    seen: set[int] = set()
    try:
        offset = _first_directory(data)
        while offset and offset not in seen:
            (entries,) = struct.unpack_from(order + count_type, data, offset)
            seen.add(offset)
            after = offset + struct.calcsize(order + count_type) + entry_size * entries
            (offset,) = struct.unpack_from(order + offset_type, data, after)
    except (struct.error, OverflowError):
        pass
    return max(len(seen), 1)


def _layout(data: bytes) -> tuple[str, bool]:
    return "<" if data[:2] == b"II" else ">", b"+" in data[2:4]


def _first_directory(data: bytes) -> int:
    order, big = _layout(data)
    (offset,) = struct.unpack_from(order + "Q", data, 8) if big else struct.unpack_from(order + "I", data, 4)
    return int(offset)
