"""Images through a worker: read ahead, one batch after the other through the codec process, write behind."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field

from darkroom.tasks.dataset.rows import ManifestRow, PlannedImage
from darkroom.tasks.errors import ErrorCode, ImageError
from darkroom.tasks.worker.codec import Answer, Codec
from darkroom.tasks.worker.images import Image, Images
from darkroom.tasks.worker.readers import Readers
from darkroom.tasks.worker.shared_batch import IMAGES, SharedBatch

READERS = 2
WRITERS = 2

BATCH_BYTES = 16 << 20
"""Bytes of a batch's sources at most, and of its outputs as far as they can be foreseen; a larger image is alone."""

BATCH_SECONDS = 1.0
"""What has taken so long is handed on: it would be lost with its worker."""

READ_AHEAD = 3
SUBMITTED = 2
WRITTEN_BEHIND = 3
"""Batches that are read, that the codec process has, and that are written, at most. The process always has the next
one while it works."""

IN_FLIGHT_BYTES = 64 << 20
"""Bytes of all batches in flight at most; a larger batch is alone."""


@dataclass(slots=True)
class _Reading:
    planned: list[PlannedImage]
    size: int
    batch: SharedBatch
    images: Future[list[Image]]


@dataclass(slots=True)
class _Working:
    images: list[Image]
    size: int
    batch: SharedBatch | None
    answered: int = 0
    handed_on: int = 0
    since: float = field(default_factory=time.monotonic)

    @property
    def is_submitted(self) -> bool:
        return bool(self.batch and self.batch.operations)

    def answer(self, answers: list[Answer]) -> None:
        """Give the next images that wait for one their answers."""
        for answer in answers:
            while self.images[self.answered].operation is None:
                self.answered += 1
            self.images[self.answered].answer = answer
            self.answered += 1


@dataclass(slots=True)
class _Writing:
    rows: Future[list[ManifestRow]]
    size: int = 0
    batch: SharedBatch | None = None
    """What is free then."""


class Pipeline:
    """Takes the images of one shard from their sources to their outputs.

    Args:
        images: reads and writes them.
        codec: this thread's.
        on_move: called whenever an image comes any further.
    """

    def __init__(self, images: Images, codec: Codec, on_move: Callable[[], None]) -> None:
        self._images = images
        self._codec = codec
        self._on_move = on_move
        self._orders = images.orders.model_dump_json().encode()
        self._reading: deque[_Reading] = deque()
        self._working: deque[_Working] = deque()
        self._writing: deque[_Writing] = deque()
        self._in_flight = 0

    def run(self, planned: list[PlannedImage]) -> Iterator[ManifestRow]:
        """Yield a finished row for every planned one, in the same order.

        Raises:
            DarkroomError: the source does not answer, no codec process can be started, or the run has ended.
        """
        batches = self._batches(planned)
        following = next(batches, None)
        try:
            with (
                closing(Readers(READERS, self._images.max_read_seconds)) as readers,
                ThreadPoolExecutor(WRITERS, "write") as writers,
            ):
                while True:
                    while following and self._has_room(following[1]):
                        self._read(readers, *following)
                        following = next(batches, None)
                    if self._reading and self._reading[0].images.done() and len(self._working) < SUBMITTED:
                        self._submit(readers)
                    elif self._working:
                        self._collect(writers)
                    elif self._writing:
                        yield from self._written()
                    elif self._reading:
                        self._submit(readers)
                    else:
                        return
                    while self._writing and (self._writing[0].rows.done() or len(self._writing) > WRITTEN_BEHIND):
                        yield from self._written()
        finally:
            if self._reading or self._working or self._writing:
                self._codec.close()

    def _batches(self, planned: list[PlannedImage]) -> Iterator[tuple[list[PlannedImage], int]]:
        """Yield images in the same order, in batches that are worth handing over, with their bytes."""
        batch: list[PlannedImage] = []
        sources = outputs = 0
        for image in planned:
            source, output = image.source_size or 0, self._images.output_bytes
            if batch and (len(batch) == IMAGES or max(sources + source, outputs + output) > BATCH_BYTES):
                yield batch, sources + outputs
                batch, sources, outputs = [], 0, 0
            batch.append(image)
            sources, outputs = sources + source, outputs + output
        if batch:
            yield batch, sources + outputs

    def _has_room(self, size: int) -> bool:
        in_flight = len(self._reading) + len(self._working) + len(self._writing)
        return not in_flight or (len(self._reading) < READ_AHEAD and self._in_flight + size <= IN_FLIGHT_BYTES)

    def _read(self, readers: Readers, planned: list[PlannedImage], size: int) -> None:
        batch = self._codec.take_batch()
        self._in_flight += size
        self._reading.append(_Reading(planned, size, batch, readers.submit(self._read_batch, planned, batch)))

    def _read_batch(self, planned: list[PlannedImage], batch: SharedBatch) -> list[Image]:
        batch.reset(self._orders)
        images = [self._images.read(image, batch) for image in planned]
        for image in images:
            if image.operation is not None:
                batch.add(image.operation, *image.source)
        return images

    def _submit(self, readers: Readers) -> None:
        """Hand over the next batch once it is read; if that does not end, its images one by one.

        A read that hangs may still write to its batch, which is not used again.
        """
        reading = self._reading.popleft()
        try:
            self._start(_Working(readers.result(reading.images), reading.size, reading.batch))
        except TimeoutError:
            for planned in reading.planned:
                self._submit_alone(readers, planned)
            self._in_flight -= reading.size

    def _submit_alone(self, readers: Readers, planned: PlannedImage) -> None:
        batch = self._codec.take_batch()
        try:
            self._start(_Working(readers.result(readers.submit(self._read_batch, [planned], batch)), 0, batch))
        except TimeoutError:
            message = f"reading did not end within max_read_seconds = {self._images.max_read_seconds:g}"
            error = ImageError(ErrorCode.SOURCE_TIMEOUT, message)
            self._working.append(_Working([Image(planned, answer=error)], 0, None))

    def _start(self, working: _Working) -> None:
        if working.batch and working.is_submitted:
            self._codec.submit(working.batch, self._images.orders)
        self._working.append(working)

    def _collect(self, writers: ThreadPoolExecutor) -> None:
        """Take what there is of the oldest batch, and hand on what is finished or late."""
        working = self._working[0]
        finished = True
        if working.is_submitted:
            answers, finished = self._codec.collect()
            working.answer(answers)
            if answers:
                self._on_move()
        if not finished and (not working.answered or time.monotonic() - working.since < BATCH_SECONDS):
            return
        upto = len(working.images) if finished else working.answered
        if upto > working.handed_on:
            rows = writers.submit(self._images.finish, working.images[working.handed_on : upto])
            self._writing.append(_Writing(rows))
            working.handed_on, working.since = upto, time.monotonic()
        if finished:
            self._working.popleft()
            self._writing[-1].size, self._writing[-1].batch = working.size, working.batch

    def _written(self) -> list[ManifestRow]:
        writing = self._writing.popleft()
        rows = writing.rows.result()
        self._in_flight -= writing.size
        if writing.batch:
            self._codec.release(writing.batch)
        return rows
