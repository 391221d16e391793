"""Mutators, which damage a file as accidents or attacks do. All randomness comes from the generator passed in."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from itertools import pairwise
from random import Random

from darkroom.tasks.imaging.formats.isobmff import boxes
from darkroom.tasks.imaging.formats.jpeg_structure import walk_segments
from darkroom.tasks.imaging.formats.png import PngImage
from tests.fuzz import build

Mutator = Callable[[Random, bytes, bytes], bytes]
"""Takes a random generator, the file, and another file to take parts from."""

NUMBERS = (0, 1, 2, 3, 4, 7, 8, 16, 24, 32, 127, 128, 255, 256, 32767, 32768, 65500, 65535, 1 << 16, 1 << 20)
NUMBERS += ((1 << 24) - 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
HEADER_BYTES = 400
"""Number of first bytes that usually contain the header."""


def _place(random: Random, data: bytes, length: int = 1) -> int:
    """Return a random position that has `length` bytes from there on; half of the time within the header."""
    room = max(len(data) - length, 0)
    return random.randint(0, min(room, HEADER_BYTES) if random.random() < 0.5 else room)


def _overwrite(data: bytes, position: int, content: bytes) -> bytes:
    return data[:position] + content + data[position + len(content) :]


def truncate(random: Random, data: bytes, _: bytes) -> bytes:
    return data[: random.randint(1, max(len(data) - 1, 1))]


def flip_bits(random: Random, data: bytes, _: bytes) -> bytes:
    damaged = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 5, 20))):
        damaged[_place(random, data)] ^= 1 << random.randrange(8)
    return bytes(damaged)


def set_bytes(random: Random, data: bytes, _: bytes) -> bytes:
    for _ in range(random.choice((1, 1, 3, 10))):
        data = _overwrite(data, _place(random, data), bytes((random.choice((0, 1, 127, 128, 254, 255)),)))
    return data


def set_number(random: Random, data: bytes, _: bytes) -> bytes:
    """Write an extreme number where a length, an offset or a size may be."""
    kind = random.choice("BHHIIQ")
    number = random.choice((*NUMBERS, len(data), len(data) - 1, len(data) + 1)) % (1 << 8 * struct.calcsize(kind))
    packed = struct.pack(random.choice("<>") + kind, number)
    return _overwrite(data, _place(random, data, len(packed)), packed)


def nudge_number(random: Random, data: bytes, _: bytes) -> bytes:
    """Add a little to a number, wherever it is."""
    kind = random.choice("BHI")
    order, size = random.choice("<>"), struct.calcsize(kind)
    position = _place(random, data, size)
    if position + size > len(data):
        return data
    (number,) = struct.unpack_from(order + kind, data, position)
    nudged = (number + random.choice((-16, -2, -1, 1, 2, 16))) % (1 << 8 * size)
    return _overwrite(data, position, struct.pack(order + kind, nudged))


def fill_run(random: Random, data: bytes, _: bytes) -> bytes:
    """Fill a run of bytes as a disk returns a lost block: with zeros, ones, or something else."""
    length = random.choice((2, 16, 64, 512))
    content = random.choice((bytes(length), b"\xff" * length, random.randbytes(length)))
    position = _place(random, data)
    return _overwrite(data, position, content[: len(data) - position])


def zero_tail(random: Random, data: bytes, _: bytes) -> bytes:
    """Replace the end by zeros, as an interrupted copy to a file of preset length does."""
    position = random.randint(1, len(data))
    return data[:position] + bytes(len(data) - position)


def remove_run(random: Random, data: bytes, _: bytes) -> bytes:
    position = _place(random, data)
    return data[:position] + data[position + random.choice((1, 2, 4, 16, 256)) :] or data


def repeat_run(random: Random, data: bytes, _: bytes) -> bytes:
    position, length = _place(random, data), random.choice((1, 4, 16, 256))
    return (
        data[: position + length]
        + data[position : position + length] * random.choice((1, 1, 30))
        + data[position + length :]
    )


def insert_run(random: Random, data: bytes, _: bytes) -> bytes:
    position = _place(random, data)
    return data[:position] + random.randbytes(random.choice((1, 2, 4, 64))) + data[position:]


def swap_runs(random: Random, data: bytes, _: bytes) -> bytes:
    first, second, length = _place(random, data), _place(random, data), random.choice((4, 16, 128))
    a, b = data[first : first + length], data[second : second + length]
    return _overwrite(_overwrite(data, first, b), second, a) if abs(first - second) >= length else data


def splice(random: Random, data: bytes, other: bytes) -> bytes:
    """Join the head of one file and the tail of another."""
    return data[: random.randint(1, len(data))] + other[random.randint(0, len(other)) :]


def graft_header(random: Random, data: bytes, other: bytes) -> bytes:
    length = random.choice((8, 16, 32, 64, 128))
    return other[:length] + data[length:]


def append(random: Random, data: bytes, other: bytes) -> bytes:
    return data + random.choice((other, b"<html><script>alert(1)</script>", bytes(1000), random.randbytes(100)))


def mend_png(_: Random, data: bytes, __: bytes) -> bytes:
    """Correct the checksums of a PNG, so that other damage reaches the decoder."""
    if not data.startswith(build.PNG_SIGNATURE):
        return data
    chunks = PngImage(data).chunks
    mended = b"".join(build.png_chunk(chunk.kind, data[chunk.start : chunk.end]) for chunk in chunks)
    return data[:8] + mended + data[8 + len(mended) :]


def shuffle_parts(random: Random, data: bytes, _: bytes) -> bytes:
    """Remove, repeat or exchange chunks, segments or boxes."""
    head, parts = _parts(data)
    if len(parts) < 3:
        return data
    i, j = random.randrange(len(parts)), random.randrange(len(parts))
    action = random.choice(("remove", "repeat", "swap", "many"))
    if action == "remove":
        del parts[i]
    elif action == "swap":
        parts[i], parts[j] = parts[j], parts[i]
    elif len(parts[i]) < 10_000:
        parts[i : i + 1] = [parts[i]] * (2 if action == "repeat" else 300)
    return head + b"".join(parts)


def _parts(data: bytes) -> tuple[bytes, list[bytes]]:
    """Return the head of a file, and its parts. The last part of a JPEG is all that follows the first scan's header."""
    start, ends = 0, []
    if data.startswith(build.PNG_SIGNATURE):
        start, ends = 8, [chunk.end + 4 for chunk in PngImage(data).chunks]
    elif data.startswith(b"\xff\xd8"):
        start, ends = 2, [end for _, _, end, _ in walk_segments(data)]
    elif data[:4] == b"RIFF":
        start, ends = 12, list(_riff_ends(data))
    elif data[4:8] in {b"ftyp", b"jP  "}:
        ends = [box.end for box in boxes(data)]
    return data[:start], [data[begin:end] for begin, end in pairwise((start, *ends, len(data)))]


def _riff_ends(data: bytes) -> Iterator[int]:
    position = 12
    while position + 8 <= len(data):
        (length,) = struct.unpack_from("<I", data, position + 4)
        position += 8 + length + length % 2
        yield position


def change_tiff_field(random: Random, data: bytes, _: bytes) -> bytes:
    """Change the tag, type, count or value of a directory's entry."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None or len(data) < 10:
        return data
    (start,) = struct.unpack_from(order + "I", data, 4)
    if start + 2 > len(data):
        return data
    (count,) = struct.unpack_from(order + "H", data, start)
    entry = start + 2 + 12 * random.randrange(max(count, 1))
    offset, kind = random.choice(((0, "H"), (2, "H"), (4, "I"), (8, "I"), (8, "H")))
    number = random.choice((*NUMBERS, start, len(data), 259, 262, 273, 279, 322, 324)) % (
        1 << 8 * struct.calcsize(kind)
    )
    return _overwrite(data, entry + offset, struct.pack(order + kind, number)) if entry + 12 <= len(data) else data


ACCIDENTS: tuple[Mutator, ...] = (truncate, flip_bits, fill_run, zero_tail, remove_run)
"""What disks, networks and interrupted copies do."""

ATTACKS: tuple[Mutator, ...] = (
    set_bytes,
    set_number,
    set_number,
    nudge_number,
    repeat_run,
    insert_run,
    swap_runs,
    splice,
    graft_header,
    append,
    shuffle_parts,
    change_tiff_field,
)
