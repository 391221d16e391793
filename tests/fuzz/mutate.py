"""Ways to damage a file, by accident and on purpose. Every choice comes from the generator that is passed in."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from random import Random

from tests.fuzz import build

Mutator = Callable[[Random, bytes, bytes], bytes]
"""Takes a generator of choices, the file, and another file to take parts from."""

NUMBERS = (0, 1, 2, 3, 4, 7, 8, 16, 24, 32, 127, 128, 255, 256, 32767, 32768, 65500, 65535, 1 << 16, 1 << 20)
NUMBERS += ((1 << 24) - 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
HEADER_BYTES = 400
"""Most of what a decoder believes before it sees pixels is in the first bytes."""


def _place(random: Random, data: bytes, length: int = 1) -> int:
    """A position at which `length` bytes are there; in half of the cases within the header."""
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
    """Put a number that decoders stumble on where a length, an offset or a size may be."""
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
    """What a disk returns for a lost block: zeros, ones, or something else."""
    length = random.choice((2, 16, 64, 512))
    content = random.choice((bytes(length), b"\xff" * length, random.randbytes(length)))
    position = _place(random, data)
    return _overwrite(data, position, content[: len(data) - position])


def zero_tail(random: Random, data: bytes, _: bytes) -> bytes:
    """What an interrupted copy leaves in a file whose length was set beforehand."""
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
    """The head of one file and the tail of another."""
    return data[: random.randint(1, len(data))] + other[random.randint(0, len(other)) :]


def graft_header(random: Random, data: bytes, other: bytes) -> bytes:
    length = random.choice((8, 16, 32, 64, 128))
    return other[:length] + data[length:]


def append(random: Random, data: bytes, other: bytes) -> bytes:
    return data + random.choice((other, b"<html><script>alert(1)</script>", bytes(1000), random.randbytes(100)))


def mend_png(_: Random, data: bytes, __: bytes) -> bytes:
    """Make the checksums of a PNG right again, so that damage reaches what is behind them."""
    if not data.startswith(build.PNG_SIGNATURE):
        return data
    position, mended = 8, data[:8]
    while position + 12 <= len(data):
        end = position + 8 + int.from_bytes(data[position : position + 4], "big")
        if end + 4 > len(data):
            break
        mended += data[position:end] + struct.pack(">I", zlib.crc32(data[position + 4 : end]))
        position = end + 4
    return mended + data[position:]


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
    if data.startswith(build.PNG_SIGNATURE):
        return data[:8], build.png_chunks(data)
    if data.startswith(b"\xff\xd8"):
        return data[:2], _jpeg_segments(data)
    if data[:4] == b"RIFF":
        return data[:12], _chunks(data, 12, "<", size_first=False)
    if data[4:8] in {b"ftyp", b"jP  "}:
        return b"", _chunks(data, 0, ">", size_first=True)
    return b"", []


def _jpeg_segments(data: bytes) -> list[bytes]:
    """Segments up to the first scan, and the rest as one part."""
    position, parts = 2, []
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != 0xDA:
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        parts.append(data[position:end])
        position = end
    return [*parts, data[position:]]


def _chunks(data: bytes, position: int, order: str, *, size_first: bool) -> list[bytes]:
    parts = []
    while position + 8 <= len(data):
        (length,) = struct.unpack_from(order + "I", data, position if size_first else position + 4)
        end = position + (max(length, 8) if size_first else 8 + length + length % 2)
        parts.append(data[position:end])
        position = end
    return [*parts, data[position:]]


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
