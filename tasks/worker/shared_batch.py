"""A batch of images in memory that a worker shares with its codec process.

A head comes first, with an entry for each image: where its source, its output and the answer about it lie. The worker
lays sources one behind the other, the codec process lays outputs and answers behind them. Neither copies what the
other wrote.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import tempfile
import weakref
from enum import IntEnum
from typing import Self

IMAGES = 8
"""Images in a batch at most: handing over each small one by itself would cost a tenth of the time that it takes."""

SIZE = 20 << 20
"""Bytes of a batch's memory. It grows for what is larger, up to any size, and gives back what is beyond this."""


class Operation(IntEnum):
    """What a codec process is to do with an image."""

    TRANSFORM = 0
    INSPECT = 1
    DESCRIBE = 2
    THUMBNAIL = 3
    SHEET = 4


class _Entry(ctypes.Structure):
    """Where what belongs to an image starts and ends; an answer follows its output."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in ("operation", "start", "end", "output", "answer", "last"))


class _Head(ctypes.Structure):
    _fields_ = (
        ("images", ctypes.c_uint64),
        ("begun", ctypes.c_uint64),  # images that the codec process has begun
        ("done", ctypes.c_uint64),  # images that it has answered for
        ("seconds", ctypes.c_double),  # of processor time that the image may take that was begun last
        ("waited", ctypes.c_double),  # seconds that the codec process had nothing to do before this batch
        ("orders", ctypes.c_uint64),  # where the orders end
        ("used", ctypes.c_uint64),  # where what is in use ends
        ("entries", _Entry * IMAGES),
    )


_HEAD_BYTES = ctypes.sizeof(_Head)


class SharedBatch:
    """The memory of one batch at a time. Only one thread, in either process, uses it at a time.

    Args:
        descriptor: of the memory; closed with this object.
    """

    head: _Head
    """What both processes say of the batch. A codec process that an image has taken over may say anything."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.operations: list[Operation] = []
        """What the worker wants done with each image."""

        weakref.finalize(self, os.close, descriptor)
        self._map()

    @classmethod
    def create(cls) -> Self:
        """Return new memory of `SIZE` bytes. Pages that are never touched take no room."""
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("darkroom-batch", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(descriptor, SIZE)
            # Were the codec process to shrink it, the worker would be killed as it reads what is no longer there.
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
            os.ftruncate(descriptor, SIZE)
        return cls(descriptor)

    def _map(self) -> None:
        # The memory that was mapped before is unmapped with the last view of it.
        self._memory = mmap.mmap(self.descriptor, os.fstat(self.descriptor).st_size)
        self._view = memoryview(self._memory)
        self.head = _Head.from_buffer(self._memory)

    def refresh(self) -> None:
        """Map what the other process has added."""
        if os.fstat(self.descriptor).st_size != len(self._view):
            self._map()

    def trim(self) -> None:
        """Give back the memory that is beyond `SIZE`."""
        self.refresh()
        if len(self._view) > SIZE and hasattr(mmap, "MADV_REMOVE"):
            self._memory.madvise(mmap.MADV_REMOVE, SIZE, len(self._view) - SIZE)

    def reset(self, orders: bytes) -> None:
        """Begin another batch, for which the codec process gets these orders."""
        self.operations = []
        self.head.images = self.head.begun = self.head.done = 0
        self.head.orders = self.head.used = _HEAD_BYTES + len(orders)
        self._view[_HEAD_BYTES : self.head.used] = orders

    def place(self, size: int) -> memoryview:
        """Return so many bytes behind what is in use. They are in use once `keep` was called."""
        end = self.head.used + size
        self.refresh()  # a process that ended as it answered may have left it larger
        if end > len(self._view):
            os.ftruncate(self.descriptor, -(-end // mmap.PAGESIZE) * mmap.PAGESIZE)
            self._map()
        return self._view[self.head.used : end]

    def keep(self, size: int) -> tuple[int, int]:
        """Note that so many of the bytes that were placed last are in use; return where they start and end."""
        start = self.head.used
        self.head.used = start + size
        return start, start + size

    def add(self, operation: Operation, start: int, end: int) -> None:
        """Add an image, of which these bytes are the source."""
        self.head.entries[len(self.operations)] = (operation, start, end)
        self.operations.append(operation)
        self.head.images = len(self.operations)

    def rewind(self, done: int) -> None:
        """Have a codec process begin with image `done`, counted from 0."""
        self.head.begun = self.head.done = done

    def answer(self, image: int) -> tuple[memoryview, memoryview]:
        """Return an image's output and the answer about it.

        Raises:
            ValueError: they are not within the memory.
        """
        self.refresh()
        entry = self.head.entries[image]
        output, answer, last = entry.output, entry.answer, entry.last
        if not _HEAD_BYTES <= output <= answer <= last <= len(self._view):
            raise ValueError(f"an answer at {output}, {answer}, {last} in {len(self._view)} bytes")
        return self._view[output:answer], self._view[answer:last]

    @property
    def orders(self) -> bytes:
        """What the worker wants of this batch."""
        return bytes(self._view[_HEAD_BYTES : self.head.orders])

    def source(self, image: int) -> tuple[Operation, memoryview]:
        """Return what to do with an image, and its bytes."""
        entry = self.head.entries[image]
        return Operation(entry.operation), self._view[entry.start : entry.end]

    def begin(self, image: int, seconds: float) -> None:
        """Note that an image is begun, and how many seconds of processor time it may take."""
        self.head.seconds = seconds
        self.head.begun = image + 1

    def finish(self, image: int, output: bytes | memoryview, answer: bytes) -> None:
        """Lay down an image's output and the answer about it, and note that it is done."""
        view = self.place(len(output) + len(answer))
        view[: len(output)] = output
        view[len(output) :] = answer
        start, last = self.keep(len(view))
        entry = self.head.entries[image]
        entry.output, entry.answer, entry.last = start, start + len(output), last
        self.head.done = image + 1
