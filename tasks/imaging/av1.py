"""AV1: how large a picture's own headers say that it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SEQUENCE_HEADER = 1
MAX_UNITS = 1000
MAX_SIZE_BYTES = 8


def frame_sizes(data: memoryview) -> Iterator[tuple[int, int]]:
    """Yield the width and height in pixels of each sequence header; no frame that follows is larger.

    Raises `IndexError` where one ends early.
    """
    position = 0
    for _ in range(MAX_UNITS):
        if position >= len(data):
            return
        head = data[position]
        position += 2 if head & 4 else 1  # with an extension or without
        length = len(data) - position
        if head & 2:
            length, position = _leb128(data, position)
        if head >> 3 & 15 == SEQUENCE_HEADER:
            yield _read_sequence_header(bytes(data[position : position + min(length, 256)]))
        position += length


def _leb128(data: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for i in range(MAX_SIZE_BYTES):
        byte = data[position + i]
        value |= (byte & 127) << 7 * i
        if not byte & 128:
            return value, position + i + 1
    raise IndexError


def _read_sequence_header(data: bytes) -> tuple[int, int]:
    bits = _Bits(data)
    bits.read(3 + 1)  # profile, still picture
    if bits.read(1):  # reduced header
        bits.read(5)
    else:
        _skip_operating_points(bits)
    width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
    return bits.read(width_bits) + 1, bits.read(height_bits) + 1


def _skip_operating_points(bits: _Bits) -> None:
    decoder_model, delay_bits = 0, 0
    if bits.read(1):  # timing
        bits.read(32 + 32)
        if bits.read(1):  # equal intervals
            bits.skip_variable()
        decoder_model = bits.read(1)
        if decoder_model:
            delay_bits = bits.read(5) + 1
            bits.read(32 + 5 + 5)
    initial_delay = bits.read(1)
    for _ in range(bits.read(5) + 1):
        bits.read(12)
        if bits.read(5) > 7:
            bits.read(1)
        if decoder_model and bits.read(1):
            bits.read(2 * delay_bits + 1)
        if initial_delay and bits.read(1):
            bits.read(4)


class _Bits:
    """Reads bits, the highest of a byte first."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def read(self, count: int) -> int:
        """Return the next `count` bits as a number."""
        self._left -= count
        if self._left < 0:
            raise IndexError
        return self._value >> self._left & (1 << count) - 1

    def skip_variable(self) -> None:
        """Skip a number of as many bits as zeros precede it."""
        zeros = 0
        while not self.read(1):
            zeros += 1
        self.read(zeros)
