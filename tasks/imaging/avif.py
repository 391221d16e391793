"""AVIF: how large its pictures are by the container and by their own headers, and whether its end is there."""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import TYPE_CHECKING

from tasks.imaging import av1
from tasks.imaging.limits import MAX_FRAMES, MAX_PARTS

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDERS = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl"})
MAX_EXTENTS = 64
"""Pieces of one item that are put together."""

ZERO_TAIL = bytes(256)
"""No picture ends like this; an interrupted copy to a file of the right length does."""

Box = tuple[bytes, int, int]
"""A box's kind, and where its contents start and end."""


def avif_size(data: bytes) -> tuple[int, int] | None:
    """Return the largest width and height in pixels that a decoder will be asked for."""
    sizes = [*_stated_sizes(data), *_coded_sizes(data)]
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def _stated_sizes(data: bytes) -> Iterator[tuple[int, int]]:
    # Every item has an `ispe` property; the picture is the largest (a grid, or the item itself).
    position = data.find(b"ispe")
    for _ in range(MAX_FRAMES):
        if position < 0:
            return
        if data[position - 4 : position] == b"\x00\x00\x00\x14" and position + 16 <= len(data):
            yield struct.unpack_from(">II", data, position + 8)
        position = data.find(b"ispe", position + 4)


def _coded_sizes(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield what the pictures' own headers say: it is their size that is decoded, and then scaled to the other."""
    with suppress(struct.error, IndexError):
        for picture in _coded_pictures(data):
            yield from av1.frame_sizes(picture)


def _coded_pictures(data: bytes) -> Iterator[memoryview]:
    for kind, start, end in _boxes(data, 0, len(data)):
        if kind == b"meta":
            contents = {inner: (begin, stop) for inner, begin, stop in _boxes(data, start + 4, end)}
            if b"iloc" in contents and b"iinf" in contents:
                coded = set(_coded_items(data, *contents[b"iinf"]))
                yield from _items(data, contents[b"iloc"][0], contents.get(b"idat", (0, 0))[0], coded)
        elif kind == b"moov":
            yield from _first_samples(data, start, end)


def _boxes(data: bytes, position: int, end: int) -> Iterator[Box]:
    for _ in range(MAX_PARTS):
        if position + 8 > end:
            return
        length, kind = struct.unpack_from(">I4s", data, position)
        head = 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, position + 8)
            head = 16
        stop = position + length if length else end
        yield kind, position + head, min(stop, end)
        if stop < position + head:
            return
        position = stop


def _coded_items(data: bytes, start: int, end: int) -> Iterator[int]:
    """Yield the numbers of the items that are AV1 pictures."""
    count_size = 2 if data[start] == 0 else 4
    for kind, begin, _ in _boxes(data, start + 4 + count_size, end):
        if kind == b"infe":
            number, _, item_type = struct.unpack_from(">HH4s" if data[begin] == 2 else ">IH4s", data, begin + 4)
            if item_type == b"av01":
                yield number


def _items(data: bytes, start: int, inner: int, wanted: set[int]) -> Iterator[memoryview]:
    """Yield the wanted items of an `iloc` box; `inner` is where the `idat` box has its contents."""
    version, sizes = data[start], struct.unpack_from(">BB", data, start + 4)
    offset_size, length_size, base_size, index_size = sizes[0] >> 4, sizes[0] & 15, sizes[1] >> 4, sizes[1] & 15
    index_size = index_size if version else 0
    wide = version == 2
    position = start + 6
    (count,) = struct.unpack_from(">I" if wide else ">H", data, position)
    position += 4 if wide else 2
    for _ in range(min(count, MAX_PARTS)):
        (number,) = struct.unpack_from(">I" if wide else ">H", data, position)
        position += 4 if wide else 2
        method = data[position + 1] & 15 if version else 0
        position += 2 if version else 0
        base = int.from_bytes(data[position + 2 : position + 2 + base_size], "big")
        (extents,) = struct.unpack_from(">H", data, position + 2 + base_size)
        position += 4 + base_size
        if number in wanted:
            begin = base + (inner if method == 1 else 0)
            yield _joined(data, begin, position, min(extents, MAX_EXTENTS), (index_size, offset_size, length_size))
        position += extents * (index_size + offset_size + length_size)


def _joined(data: bytes, base: int, position: int, extents: int, sizes: tuple[int, int, int]) -> memoryview:
    index_size, offset_size, length_size = sizes
    parts = []
    for _ in range(extents):
        position += index_size
        begin = base + int.from_bytes(data[position : position + offset_size], "big")
        position += offset_size
        length = int.from_bytes(data[position : position + length_size], "big")
        position += length_size
        parts.append(memoryview(data)[begin : begin + length if length else len(data)])
    return parts[0] if len(parts) == 1 else memoryview(b"".join(parts))


def _first_samples(data: bytes, start: int, end: int, depth: int = 0) -> Iterator[memoryview]:
    """Yield the first picture of each track of an animation."""
    for kind, begin, stop in _boxes(data, start, end):
        if kind in FOLDERS and depth < len(FOLDERS):
            yield from _first_samples(data, begin, stop, depth + 1)
        elif kind in {b"stco", b"co64"}:
            (offset,) = struct.unpack_from(">I" if kind == b"stco" else ">Q", data, begin + 8)
            yield memoryview(data)[offset:]


def is_cut_avif(data: bytes) -> bool:
    """Tell whether the pictures' data is shorter than the file says, or not there at all."""
    for kind, start, _ in _boxes(data, 0, len(data)):
        if kind == b"mdat":
            (length,) = struct.unpack_from(">I", data, start - 8)
            # A length of 0 says that it goes on to the end, wherever that is.
            return bool(start - 8 + length > len(data))
    return True


def avif_ends_in_zeros(data: bytes) -> bool:
    """Tell whether pictures have lost their end."""
    return any(
        kind == b"mdat" and data.endswith(ZERO_TAIL, start, end) for kind, start, end in _boxes(data, 0, len(data))
    )
