"""A batch of images in memory that a worker shares with its codec process.

A header comes first, with an entry for each image: where its source, its output and the answer about it lie. The worker
lays sources one behind the other, the codec process lays outputs and answers behind them. Neither copies what the
other wrote. Numbers are native-endian: both processes run on one machine.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import tempfile
import weakref
from enum import IntEnum
from typing import Self

IMAGES = 8
"""Images in a batch at most: handing over each small one by itself would cost a tenth of the time that it takes."""

SIZE = 20 << 20
"""Bytes of a batch's memory. It grows for what is larger, up to any size, and gives back what is beyond this."""

_COUNTS = struct.Struct("=IIII")  # images, begun, done, length of the orders
_FIGURES = struct.Struct("=Qdd")  # bytes in use, seconds allowed to the image that was begun, seconds waited
_ENTRY = struct.Struct("=QQQQQQQ")  # operation; start and end of source, output and answer
_FIGURES_AT = _COUNTS.size
_ENTRIES_AT = _FIGURES_AT + _FIGURES.size
_ORDERS_AT = _ENTRIES_AT + IMAGES * _ENTRY.size


class Operation(IntEnum):
    """What a codec process is to do with an image."""

    TRANSFORM = 0
    INSPECT = 1
    DESCRIBE = 2
    THUMBNAIL = 3
    PREVIEW = 4
    SHEET = 5


class SharedBatch:
    """The memory of one batch at a time. Only one thread, in either process, uses it at a time.

    Args:
        descriptor: of the memory; closed with this object.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.operations: list[Operation] = []
        """What its worker wants done with each image."""

        weakref.finalize(self, os.close, descriptor)
        self._map()

    @classmethod
    def create(cls) -> Self:
        """Return new memory of `SIZE` bytes. Pages that are never touched take no room."""
        if not hasattr(os, "memfd_create"):
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
            os.ftruncate(descriptor, SIZE)
            return cls(descriptor)
        descriptor = os.memfd_create("darkroom-batch", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, SIZE)
        # Were the codec process to shrink it, the worker would be killed as it reads what is no longer there.
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        return cls(descriptor)

    def _map(self) -> None:
        # The memory that was mapped before is unmapped with the last view of it.
        self._memory = mmap.mmap(self.descriptor, os.fstat(self.descriptor).st_size)
        self._view = memoryview(self._memory)

    def refresh(self) -> None:
        """Map what the other process has added."""
        if os.fstat(self.descriptor).st_size != len(self._view):
            self._map()

    def reset(self, orders: bytes) -> None:
        """Begin another batch, for which the codec process gets these orders."""
        if len(self._view) > SIZE and hasattr(mmap, "MADV_REMOVE"):
            self._memory.madvise(mmap.MADV_REMOVE, SIZE, len(self._view) - SIZE)
        self.operations = []
        _COUNTS.pack_into(self._view, 0, 0, 0, 0, len(orders))
        self._set_used(_ORDERS_AT + len(orders))
        self._view[_ORDERS_AT : self.used] = orders

    def place(self, size: int) -> memoryview:
        """Return so many bytes behind what is in use. They are in use once `keep` was called."""
        start = self.used
        return self._view_of(start, start + size)

    def keep(self, size: int) -> tuple[int, int]:
        """Note that so many of the bytes that were placed last are in use; return where they start and end."""
        start = self.used
        self._set_used(start + size)
        return start, start + size

    def add(self, operation: Operation, start: int, end: int) -> None:
        """Add an image, of which these bytes are the source."""
        _ENTRY.pack_into(self._view, _entry_at(len(self.operations)), operation, start, end, 0, 0, 0, 0)
        self.operations.append(operation)
        struct.pack_into("=I", self._view, 0, len(self.operations))

    def rewind(self, done: int) -> None:
        """Have a codec process begin with image `done`, counted from 0."""
        struct.pack_into("=II", self._view, 4, done, done)

    def answer(self, image: int) -> tuple[memoryview, memoryview]:
        """Return an image's output and the answer about it.

        Raises:
            ValueError: they are not within the memory.
        """
        _, _, _, *bounds = _ENTRY.unpack_from(self._view, _entry_at(image))
        self.refresh()
        start, middle, answer, end = bounds
        if not _ORDERS_AT <= start <= middle <= answer <= end <= len(self._view):
            raise ValueError(f"an answer at {bounds} in {len(self._view)} bytes")
        return self._view[start:middle], self._view[answer:end]

    @property
    def images(self) -> int:
        """How many images there are."""
        return int(_COUNTS.unpack_from(self._view)[0])

    @property
    def begun(self) -> int:
        """How many images the codec process has begun."""
        return int(_COUNTS.unpack_from(self._view)[1])

    @property
    def done(self) -> int:
        """How many images the codec process has answered for."""
        return int(_COUNTS.unpack_from(self._view)[2])

    @property
    def used(self) -> int:
        """How many bytes are in use."""
        return int(_FIGURES.unpack_from(self._view, _FIGURES_AT)[0])

    @property
    def seconds(self) -> float:
        """Seconds of processor time that the image may take that was begun last."""
        return float(_FIGURES.unpack_from(self._view, _FIGURES_AT)[1])

    @property
    def waited(self) -> float:
        """Seconds that the codec process had nothing to do before it got this batch."""
        return float(_FIGURES.unpack_from(self._view, _FIGURES_AT)[2])

    def _set_used(self, used: int) -> None:
        struct.pack_into("=Q", self._view, _FIGURES_AT, used)

    def _view_of(self, start: int, end: int) -> memoryview:
        if end > len(self._view):
            os.ftruncate(self.descriptor, -(-end // mmap.PAGESIZE) * mmap.PAGESIZE)
            self._map()
        return self._view[start:end]

    @property
    def orders(self) -> bytes:
        """What the worker wants of this batch."""
        length = _COUNTS.unpack_from(self._view)[3]
        return bytes(self._view[_ORDERS_AT : _ORDERS_AT + length])

    def source(self, image: int) -> tuple[Operation, memoryview]:
        """Return what to do with an image, and its bytes."""
        operation, start, end, *_ = _ENTRY.unpack_from(self._view, _entry_at(image))
        return Operation(operation), self._view[start:end]

    def begin(self, image: int, seconds: float) -> None:
        """Note that an image is begun, and how many seconds of processor time it may take."""
        struct.pack_into("=d", self._view, _FIGURES_AT + 8, seconds)
        struct.pack_into("=I", self._view, 4, image + 1)

    def set_waited(self, seconds: float) -> None:
        """Note how long there was nothing to do."""
        struct.pack_into("=d", self._view, _FIGURES_AT + 16, seconds)

    def finish(self, image: int, output: bytes | memoryview, answer: bytes) -> None:
        """Lay down an image's output and the answer about it, and note that it is done."""
        start = self.used
        middle, end = start + len(output), start + len(output) + len(answer)
        view = self._view_of(start, end)
        view[: len(output)] = output
        view[len(output) :] = answer
        struct.pack_into("=QQQQ", self._view, _entry_at(image) + 24, start, middle, middle, end)
        self._set_used(end)
        struct.pack_into("=I", self._view, 8, image + 1)


def _entry_at(image: int) -> int:
    return _ENTRIES_AT + image * _ENTRY.size
