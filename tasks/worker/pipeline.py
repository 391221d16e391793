"""Images through a worker: read ahead, one batch after the other through the codec process, finish behind."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from tasks.errors import ErrorCode, ImageError
from tasks.journal import Row
from tasks.worker.codec import Answer, Codec
from tasks.worker.orders import Orders
from tasks.worker.readers import Readers
from tasks.worker.shared_batch import IMAGES, Operation, SharedBatch

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
class Item:
    """An image on its way through the pipeline."""

    planned: Row
    """Its row of the plan."""

    operation: Operation | None = None
    """What the codec process is to do with it, if anything."""

    source: tuple[int, int] = (0, 0)
    """Where its bytes start and end in its batch."""

    answer: Answer | None = None
    """What the codec process says of it."""


I = TypeVar("I", bound=Item)  # noqa: E741
R = TypeVar("R")


class Stage(ABC, Generic[I, R]):
    """What is done with images before and after the codec process has them.

    Args:
        orders: what the codec process is to do.
        max_read_seconds: how long reading an image, or a batch of small ones, may take.
    """

    def __init__(self, orders: Orders, max_read_seconds: float) -> None:
        self.orders = orders
        self.max_read_seconds = max_read_seconds

    @abstractmethod
    def size_of(self, planned: Row) -> tuple[int, int]:
        """Return how many bytes an image's source and its output will have, as far as is known."""

    @abstractmethod
    def read(self, planned: Row, batch: SharedBatch) -> I:
        """Read an image into a batch; never raises for what is wrong with it."""

    @abstractmethod
    def unread(self, planned: Row, error: ImageError) -> I:
        """Return an image that could not be read in time."""

    @abstractmethod
    def finish(self, items: list[I]) -> list[R]:
        """Return what came of images that are through the codec process."""


@dataclass(slots=True)
class _Reading(Generic[I]):
    planned: list[Row]
    size: int
    batch: SharedBatch
    future: Future[list[I]]


@dataclass(slots=True)
class _Working(Generic[I]):
    items: list[I]
    size: int
    batch: SharedBatch | None
    answered: int = 0
    handed_on: int = 0
    since: float = field(default_factory=time.monotonic)

    def answer(self, answers: list[Answer]) -> None:
        """Give the next items that wait for one their answers."""
        for answer in answers:
            while self.items[self.answered].operation is None:
                self.answered += 1
            self.items[self.answered].answer = answer
            self.answered += 1


@dataclass(slots=True)
class _Writing(Generic[R]):
    future: Future[list[R]]
    size: int = 0
    batch: SharedBatch | None = None
    """The batch that can be released then, with its size."""


@dataclass(slots=True)
class Waits:
    """How often, and for how many seconds, the codec process had nothing to do between two batches of a shard."""

    batches: int = 0
    waits: int = 0
    seconds: float = 0.0


class Pipeline(Generic[I, R]):
    """Takes the images of one shard through a stage and a codec.

    Args:
        stage: what is done with them.
        codec: this thread's.
        on_move: called whenever an image comes any further.
    """

    def __init__(self, stage: Stage[I, R], codec: Codec, on_move: Callable[[], None]) -> None:
        self._stage = stage
        self._codec = codec
        self._on_move = on_move
        self._orders = stage.orders.model_dump_json().encode()
        self._reading: deque[_Reading[I]] = deque()
        self._working: deque[_Working[I]] = deque()
        self._writing: deque[_Writing[R]] = deque()
        self._in_flight = 0
        self.waits = Waits()

    def run(self, planned: list[Row]) -> Iterator[R]:
        """Yield what came of each image, in the same order.

        Raises:
            DarkroomError: the source does not answer, no codec process can be started, or what the stage raises.
        """
        batches = self._batches(planned)
        following = next(batches, None)
        try:
            with (
                closing(Readers(READERS, self._stage.max_read_seconds)) as readers,
                ThreadPoolExecutor(WRITERS, "write") as writers,
            ):
                while True:
                    while following and self._has_room(following[1]):
                        self._read(readers, *following)
                        following = next(batches, None)
                    if self._is_next_read() and len(self._working) < SUBMITTED:
                        self._submit(readers)
                    elif self._working:
                        self._collect(writers)
                    elif self._writing:
                        yield from self._written()
                    elif self._reading:
                        self._submit(readers)
                    else:
                        return
                    while self._writing and (self._writing[0].future.done() or len(self._writing) > WRITTEN_BEHIND):
                        yield from self._written()
        finally:
            if self._reading or self._working or self._writing:
                self._codec.close()

    def _batches(self, planned: list[Row]) -> Iterator[tuple[list[Row], int]]:
        """Yield rows in the same order, in batches that are worth handing over, with their bytes."""
        rows: list[Row] = []
        sources = outputs = 0
        for row in planned:
            source, output = self._stage.size_of(row)
            if rows and (len(rows) == IMAGES or max(sources + source, outputs + output) > BATCH_BYTES):
                yield rows, sources + outputs
                rows, sources, outputs = [], 0, 0
            rows.append(row)
            sources, outputs = sources + source, outputs + output
        if rows:
            yield rows, sources + outputs

    def _has_room(self, size: int) -> bool:
        in_flight = len(self._reading) + len(self._working) + len(self._writing)
        return not in_flight or (len(self._reading) < READ_AHEAD and self._in_flight + size <= IN_FLIGHT_BYTES)

    def _is_next_read(self) -> bool:
        return bool(self._reading) and self._reading[0].future.done()

    def _read(self, readers: Readers, planned: list[Row], size: int) -> None:
        batch = self._codec.take_batch()
        self._in_flight += size
        self._reading.append(_Reading(planned, size, batch, readers.submit(self._read_batch, planned, batch)))

    def _read_batch(self, planned: list[Row], batch: SharedBatch) -> list[I]:
        batch.reset(self._orders)
        items = [self._stage.read(row, batch) for row in planned]
        for item in items:
            if item.operation is not None:
                batch.add(item.operation, *item.source)
        return items

    def _submit(self, readers: Readers) -> None:
        """Hand over the next batch once it is read; if that does not end, its images one by one."""
        reading = self._reading.popleft()
        try:
            self._start(_Working(readers.result(reading.future), reading.size, reading.batch))
        except TimeoutError:
            self._codec.forget(reading.batch)
            for planned in reading.planned:
                self._submit_alone(readers, planned)
            self._in_flight -= reading.size

    def _submit_alone(self, readers: Readers, planned: Row) -> None:
        batch = self._codec.take_batch()
        try:
            items = readers.result(readers.submit(self._read_batch, [planned], batch))
        except TimeoutError:
            self._codec.forget(batch)
            message = f"reading did not end within max_read_seconds = {self._stage.max_read_seconds:g}"
            items = [self._stage.unread(planned, ImageError(ErrorCode.SOURCE_TIMEOUT, message))]
            self._working.append(_Working(items, 0, None))
        else:
            self._start(_Working(items, 0, batch))

    def _start(self, working: _Working[I]) -> None:
        if working.batch and working.batch.operations:
            self._codec.submit(working.batch, self._stage.orders)
        self._working.append(working)

    def _collect(self, writers: ThreadPoolExecutor) -> None:
        """Take what there is of the oldest batch, and hand on what is finished or late."""
        working = self._working[0]
        finished = True
        if working.batch and working.batch.operations:
            found = self._codec.collect()
            working.answer(found.answers)
            finished = found.finished
            if found.answers:
                self._on_move()
        if not finished and (not working.answered or time.monotonic() - working.since < BATCH_SECONDS):
            return
        upto = len(working.items) if finished else working.answered
        if upto > working.handed_on:
            future = writers.submit(self._stage.finish, working.items[working.handed_on : upto])
            self._writing.append(_Writing(future))
            working.handed_on, working.since = upto, time.monotonic()
        if finished:
            self._working.popleft()
            last = self._writing[-1]
            last.size, last.batch = working.size, working.batch
            self._note_wait(working.batch)

    def _note_wait(self, batch: SharedBatch | None) -> None:
        if batch and batch.operations:
            # Before its first batch the process had none of this shard.
            if self.waits.batches and batch.waited > 0.001:
                self.waits.waits += 1
                self.waits.seconds += batch.waited
            self.waits.batches += 1

    def _written(self) -> list[R]:
        writing = self._writing.popleft()
        results = writing.future.result()
        self._in_flight -= writing.size
        if writing.batch:
            self._codec.release(writing.batch)
        return results
