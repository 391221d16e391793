"""Process a shard's images batch by batch: read ahead, transform in the codec process, write behind."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeVar

from darkroom.tasks.dataset.rows import ManifestRow, PlannedImage
from darkroom.tasks.worker.codec import Codec
from darkroom.tasks.worker.images import Image, Images
from darkroom.tasks.worker.orders import Answer
from darkroom.tasks.worker.readers import Readers
from darkroom.tasks.worker.shared_batch import BATCH_IMAGES, SIZE, SharedBatch

BATCH_BYTES = 16 << 20
"""Upper limit on the bytes of a batch's sources, and on its estimated outputs; a larger image is a batch by itself."""

BATCH_SECONDS = 1.0
"""Interval at which outputs of an unfinished batch are written, so that fewer are lost if the worker dies."""

SUBMITTED = 2
"""Upper limit on the batches that are submitted. The codec process has two, so that it need not wait for the next."""

IN_FLIGHT_BYTES = 64 << 20
"""Upper limit on the bytes of all batches in flight; a larger batch is the only one in flight."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Pace:
    """Limits on reading ahead and writing behind."""

    batches: int
    """Upper limit on the batches that are being read, and on those that are being written."""

    writers: int
    """Threads that write outputs."""

    keep: int
    """Bytes of memory that a batch keeps for its reuse."""


NEAR = _Pace(batches=3, writers=2, keep=SIZE)
"""For a local folder: the images of a batch are read, and written, one after the other."""

FAR = _Pace(batches=8, writers=32, keep=IN_FLIGHT_BYTES // 16)
"""For a bucket: the images of a batch are read, and written, at the same time, because each waits for the network."""


@dataclass(slots=True)
class _InFlight:
    """A batch between the start of its read and the end of its writes."""

    planned: list[PlannedImage]
    size: int
    """Estimated bytes of its sources and outputs."""

    memory: SharedBatch | None
    reading: list[Future[list[Image]]]
    is_retry: bool
    images: list[Image] = field(default_factory=list)
    answered: int = 0
    """The images before this index have an answer, or need none."""

    written: int = 0
    """The images before this index are written, or being written since `written_at`."""

    written_at: float = 0.0

    @property
    def is_read(self) -> bool:
        return all(reading.done() for reading in self.reading)

    @property
    def is_submitted(self) -> bool:
        return bool(self.memory and self.memory.operations)

    def answer(self, answers: list[Answer]) -> None:
        """Set the answers of the next images that need one."""
        for answer in answers:
            while self.images[self.answered].operation is None:
                self.answered += 1
            self.images[self.answered].answer = answer
            self.answered += 1


@dataclass(slots=True)
class _Writing:
    rows: list[Future[list[ManifestRow]]]
    finished: _InFlight | None
    """The batch that ends with these rows."""

    @property
    def is_done(self) -> bool:
        return all(rows.done() for rows in self.rows)


class Pipeline:
    """Processes the images of one shard.

    Args:
        images: reads and writes them.
        codec: this thread's codec process.
        on_progress: called several times a second while the codec process works, even on a single slow image.
    """

    def __init__(self, images: Images, codec: Codec, on_progress: Callable[[], None]) -> None:
        self._images = images
        self._codec = codec
        self._on_progress = on_progress
        self._read_pace = FAR if images.read_apart else NEAR
        self._write_pace = FAR if images.written_apart else NEAR
        self._orders = images.orders.model_dump_json().encode()
        self._reading: deque[_InFlight] = deque()
        self._working: deque[_InFlight] = deque()
        self._writing: deque[_Writing] = deque()
        self._readers = Readers(images.max_read_seconds)
        self._in_flight = 0
        self._ended = False

    def run(self, planned: list[PlannedImage]) -> Iterator[ManifestRow]:
        """Yield a row for each planned image, in the same order.

        Raises:
            DarkroomError: the source does not answer, no codec process can be started, or the run has ended.
        """
        batches = self._batches(planned)
        following = next(batches, None)
        try:
            with ThreadPoolExecutor(self._write_pace.writers, "write") as writers:
                while True:
                    while following and self._has_room(following[1]):
                        self._reading.append(self._read(*following))
                        following = next(batches, None)
                    if self._reading and self._reading[0].is_read and len(self._working) < SUBMITTED:
                        self._submit()
                    elif self._working:
                        self._collect(writers)
                    elif self._writing:
                        yield from self._written()
                    elif self._reading:
                        self._submit()
                    else:
                        return
                    behind = self._write_pace.batches
                    while self._writing and (self._writing[0].is_done or len(self._writing) > behind):
                        yield from self._written()
        finally:
            self._ended = True
            self._readers.close()
            if self._reading or self._working or self._writing:
                self._codec.close()

    def _batches(self, planned: list[PlannedImage]) -> Iterator[tuple[list[PlannedImage], int]]:
        """Yield batches of images in the same order, each with the estimated bytes of its sources and outputs."""
        batch: list[PlannedImage] = []
        sources = outputs = 0
        for image in planned:
            source, output = image.source_size or 0, self._images.output_bytes
            if batch and (len(batch) == BATCH_IMAGES or max(sources + source, outputs + output) > BATCH_BYTES):
                yield batch, sources + outputs
                batch, sources, outputs = [], 0, 0
            batch.append(image)
            sources, outputs = sources + source, outputs + output
        if batch:
            yield batch, sources + outputs

    def _has_room(self, size: int) -> bool:
        in_flight = len(self._reading) + len(self._working) + len(self._writing)
        has_place = len(self._reading) < self._read_pace.batches and self._in_flight + size <= IN_FLIGHT_BYTES
        return not in_flight or has_place

    def _read(self, planned: list[PlannedImage], size: int, *, is_retry: bool = False) -> _InFlight:
        memory = self._codec.take_batch()
        memory.reset(self._orders)
        self._in_flight += size
        parts = _parts(planned, apart=self._images.read_apart)
        return _InFlight(
            planned, size, memory, [self._readers.start(self._read_part, part, memory) for part in parts], is_retry
        )

    def _read_part(self, planned: list[PlannedImage], memory: SharedBatch) -> list[Image]:
        return [self._images.read(image, memory) for image in planned if not self._ended]

    def _submit(self) -> None:
        """Wait until the next batch is read, and submit it to the codec process.

        If its read hangs, each of its images is read again by itself, and fails if that read hangs, too. A hung read
        may still write to its batch's memory, so that is not reused.
        """
        batch = self._reading.popleft()
        try:
            read = self._readers.results(batch.reading)
            batch.images = list(chain.from_iterable(read))
        except TimeoutError:
            if not batch.is_retry:
                self._in_flight -= batch.size
                again = [self._read([image], 0, is_retry=True) for image in batch.planned]
                self._reading.extendleft(reversed(again))
                return
            batch.images, batch.memory = [self._images.hung(image) for image in batch.planned], None
        for image in batch.images:
            if batch.memory and image.operation is not None:
                batch.memory.add(image.operation, *image.source)
        if batch.memory and batch.is_submitted:
            self._codec.submit(batch.memory, self._images.orders)
        batch.written_at = time.monotonic()
        self._working.append(batch)

    def _collect(self, writers: ThreadPoolExecutor) -> None:
        """Collect answers for the oldest batch; start writing outputs if it is finished, or each `BATCH_SECONDS`."""
        batch, finished = self._working[0], True
        if batch.is_submitted:
            answers, finished = self._codec.collect()
            batch.answer(answers)
            self._on_progress()
        end = len(batch.images) if finished else batch.answered
        if finished or (end > batch.written and time.monotonic() - batch.written_at >= BATCH_SECONDS):
            parts = _parts(batch.images[batch.written : end], apart=self._images.written_apart)
            rows = [writers.submit(self._images.finish, part) for part in parts]
            self._writing.append(_Writing(rows, batch if finished else None))
            batch.written, batch.written_at = end, time.monotonic()
        if finished:
            self._working.popleft()

    def _written(self) -> list[ManifestRow]:
        """Wait for the oldest write, and return its rows; release a finished batch's memory."""
        writing = self._writing.popleft()
        rows = [row for part in writing.rows for row in part.result()]
        if writing.finished:
            self._in_flight -= writing.finished.size
            if writing.finished.memory:
                self._codec.release(writing.finished.memory, min(self._read_pace.keep, self._write_pace.keep))
        return rows


def _parts(images: list[T], *, apart: bool) -> list[list[T]]:
    """Return the groups of images that a thread reads or writes: one image each if `apart`, else all."""
    return [[image] for image in images] if apart else [images]
