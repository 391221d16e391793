"""A batch of images in memory that a worker shares with its codec process, so that neither copies images.

It begins with a head, which has an entry for each image: the positions of its source, its output and its answer. The
orders follow, then the sources, written by the worker, then outputs and answers, written by the codec process.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import resource
import tempfile
import threading
import weakref
from enum import IntEnum
from typing import Self

from darkroom.tasks.errors import DarkroomError

BATCH_IMAGES = 8
"""Upper limit on the images of a batch. Submitting each small image by itself would cost a tenth of its time."""

SIZE = 20 << 20
"""Initial bytes of a batch's memory. It grows as needed for larger images; `trim` returns the excess to the system.
Pages that are never touched take no memory."""


class Operation(IntEnum):
    """An operation of the codec process on an image."""

    TRANSFORM = 0
    INSPECT = 1
    DESCRIBE = 2
    THUMBNAIL = 3
    SHEET = 4


class _Entry(ctypes.Structure):
    """An image: its operation, and the start and end of its source, start of output and answer, end of the answer."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in ("operation", "start", "end", "output", "answer", "last"))


class _Head(ctypes.Structure):
    _fields_ = (
        ("images", ctypes.c_uint64),  # number of images
        ("begun", ctypes.c_uint64),  # number of images that the codec process has begun
        ("done", ctypes.c_uint64),  # number of images with an answer
        ("seconds", ctypes.c_double),  # seconds of processor time that the image begun last may take
        ("waited", ctypes.c_double),  # seconds that the codec process was idle before this batch
        ("orders", ctypes.c_uint64),  # end of the orders
        ("used", ctypes.c_uint64),  # end of the bytes in use
        ("entries", _Entry * BATCH_IMAGES),
    )


_HEAD_BYTES = ctypes.sizeof(_Head)


class SharedBatch:
    """The memory of one batch at a time, used by one thread at a time in either process, but for `reserve`.

    Args:
        descriptor: the memory's file descriptor, closed when this object is collected.
    """

    head: _Head
    """Written by both processes. The worker must not trust it: an image may control the codec process."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.operations: list[Operation] = []
        """The operations as the worker set them, which the codec process cannot change."""

        self._lock = threading.Lock()
        weakref.finalize(self, os.close, descriptor)
        self._map()

    @classmethod
    def create(cls) -> Self:
        """Return new memory of `SIZE` bytes; raise `DarkroomError` if a limit of this process forbids it."""
        descriptor = None
        try:
            descriptor = _new_file()
            os.ftruncate(descriptor, SIZE)
        except OSError as error:
            if descriptor is not None:
                os.close(descriptor)
            files, size = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE))
            raise DarkroomError(
                f"A worker can't share memory with its codec process: {os.strerror(error.errno or 0)}. It needs "
                f"several files of {SIZE:,} bytes and more per thread, and may open {files:,} files ('ulimit -n') of "
                f"{size:,} bytes ('ulimit -f'; -1 is unlimited). Raise these limits on the workers' machines."
            ) from error
        return cls(descriptor)

    def _map(self) -> None:
        # The previous mapping is unmapped when its last view is collected.
        self._memory = mmap.mmap(self.descriptor, os.fstat(self.descriptor).st_size)
        self._view = memoryview(self._memory)
        self.head = _Head.from_buffer(self._memory)

    def refresh(self) -> None:
        """Map the memory again if the other process has changed its size."""
        if os.fstat(self.descriptor).st_size != len(self._view):
            self._map()

    def trim(self, keep: int = SIZE) -> None:
        """Return the memory beyond `keep` bytes, at most `SIZE`, to the system, if it was used."""
        self.refresh()
        keep = -(-keep // mmap.PAGESIZE) * mmap.PAGESIZE
        length = len(self._view)
        if (length > SIZE or keep < self.head.used <= length) and hasattr(mmap, "MADV_REMOVE"):
            self._memory.madvise(mmap.MADV_REMOVE, keep, length - keep)

    def reset(self, orders: bytes) -> None:
        """Clear the batch, and write the orders of the next."""
        self.operations = []
        self.head.images = self.head.begun = self.head.done = 0
        self.head.orders = self.head.used = _HEAD_BYTES + len(orders)
        self._view[_HEAD_BYTES : self.head.used] = orders

    def place(self, size: int) -> memoryview:
        """Return `size` bytes after those in use, growing the memory as needed; `keep` marks them as in use."""
        end = self.head.used + size
        self.refresh()  # a codec process that ended while it wrote an answer may have grown the memory
        if end > len(self._view):
            os.ftruncate(self.descriptor, -(-end // mmap.PAGESIZE) * mmap.PAGESIZE)
            self._map()
        return self._view[self.head.used : end]

    def keep(self, size: int) -> tuple[int, int]:
        """Mark the first `size` bytes of the last `place` as in use; return their start and end."""
        start = self.head.used
        self.head.used = start + size
        return start, start + size

    def reserve(self, size: int) -> tuple[int, memoryview]:
        """Mark this many more bytes as in use; return their start and the bytes. Several threads may call this."""
        with self._lock:
            view = self.place(size)
            return self.keep(size)[0], view

    def add(self, operation: Operation, start: int, end: int) -> None:
        """Add an image with this operation and the start and end of its source."""
        self.head.entries[len(self.operations)] = (operation, start, end)
        self.operations.append(operation)
        self.head.images = len(self.operations)

    def rewind(self, done: int) -> None:
        """Make the codec process begin at the image with index `done`."""
        self.head.begun = self.head.done = done

    def answer(self, image: int) -> tuple[memoryview, memoryview]:
        """Return an image's output and answer; raise `ValueError` if they are not within the memory."""
        self.refresh()
        entry = self.head.entries[image]
        output, answer, last = entry.output, entry.answer, entry.last
        if not _HEAD_BYTES <= output <= answer <= last <= len(self._view):
            raise ValueError(f"an answer at {output}, {answer}, {last} in {len(self._view)} bytes")
        return self._view[output:answer], self._view[answer:last]

    @property
    def orders(self) -> bytes:
        """The orders of this batch."""
        return bytes(self._view[_HEAD_BYTES : self.head.orders])

    def source(self, image: int) -> tuple[Operation, memoryview]:
        """Return an image's operation and bytes."""
        entry = self.head.entries[image]
        return Operation(entry.operation), self._view[entry.start : entry.end]

    def begin(self, image: int, seconds: float) -> None:
        """Mark an image as begun, with the seconds of processor time that it may take."""
        self.head.seconds = seconds
        self.head.begun = image + 1

    def finish(self, image: int, output: bytes | memoryview, answer: bytes) -> None:
        """Write an image's output and answer, and mark the image as done."""
        view = self.place(len(output) + len(answer))
        view[: len(output)] = output
        view[len(output) :] = answer
        start, last = self.keep(len(view))
        entry = self.head.entries[image]
        entry.output, entry.answer, entry.last = start, start + len(output), last
        self.head.done = image + 1


class Room:
    """Memory of a batch for one object, which is reserved when its size is known.

    Args:
        batch: the batch.
    """

    def __init__(self, batch: SharedBatch) -> None:
        self._batch = batch
        self._view = memoryview(b"")
        self.start = 0
        """Where it starts in the batch."""

    def __call__(self, size: int) -> memoryview:
        """Return memory of this many bytes; a retry gets the same memory if it suffices."""
        if size > len(self._view):
            self.start, self._view = self._batch.reserve(size)
        return self._view[:size]


def _new_file() -> int:
    """Return the descriptor of a new file in memory, or of a temporary file if the system has no memory files."""
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())
    descriptor = os.memfd_create("darkroom-batch", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    # Without seals, a codec process could shrink the file, and reading beyond its end would kill the worker.
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    return descriptor
