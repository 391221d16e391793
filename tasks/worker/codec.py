"""The worker's side of a codec process: hand over batches, take answers, replace the process when an image ends it.

Only bytes and validated JSON come back from a codec process, and it gets no credentials: an image that takes control
of a decoder cannot make the worker run anything.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from darkroom.tasks.errors import ErrorCode, ImageError
from darkroom.tasks.settings import Rules
from darkroom.tasks.worker.codec_handle import (
    END_SECONDS,
    TICK_SECONDS,
    Fault,
    ProcessHandle,
    end_server,
    no_process,
    too_long,
)
from darkroom.tasks.worker.orders import Answer, Orders, read_answer
from darkroom.tasks.worker.shared_batch import IMAGES, SIZE, Operation, SharedBatch

PATIENCE = 3
"""Seconds by the clock for each second of processor time that an image may take: the machine may have other work."""

START_SECONDS = 120.0

MAX_TRIES = 2
MAX_TRIES_FROM_OUTSIDE = 3
"""Tries at an image that ends its process, and at one whose processes were killed from outside."""

MAX_IDLE_FAULTS = 3
"""After this many faults in a row without an image begun, the images are not the cause."""


@dataclass(slots=True, eq=False)
class _Submitted:
    """A batch that was handed over."""

    batch: SharedBatch
    orders: Orders
    taken: int = 0
    """Number of images whose answers were taken."""

    tries: int = 0
    """How many processes have ended at the next image."""

    begun: int = -1
    """Number of images that were begun when this was last looked at, and the seconds for which it has not changed."""
    unchanged_seconds: float = 0.0

    @property
    def is_finished(self) -> bool:
        return self.taken == len(self.batch.operations)

    def take(self, answer: Answer) -> Answer:
        """Go on to the next image."""
        self.taken += 1
        self.tries = 0
        return answer


class Codec:
    """A codec process, and the batches that are shared with it. It belongs to one thread.

    The process is started when it is first needed and after each fault. The image at which it ended is tried again in a
    fresh one, because images before it may have been the cause; and once more if that was killed from outside, because
    a machine that runs out of memory may kill any process. A timeout is not tried again. So a bad image costs three
    processes at most, and costs other images nothing.
    """

    def __init__(self) -> None:
        self._process: ProcessHandle | None = None
        self._submitted: deque[_Submitted] = deque()
        self._free: list[SharedBatch] = []
        self._idle_faults = 0

    def start(self) -> ProcessHandle:
        """Return the process, started if there is none; do not wait until it is ready."""
        if self._process is None:
            self._process = ProcessHandle()
            for submitted in self._submitted:
                submitted.batch.rewind(submitted.taken)
                submitted.begun = -1
                self._process.send(submitted.batch)
        return self._process

    def take_batch(self) -> SharedBatch:
        """Return free memory for a batch. Memory that is never released is never used again."""
        return self._free.pop() if self._free else SharedBatch.create()

    def release(self, batch: SharedBatch, keep: int = SIZE) -> None:
        """Make the memory of a batch free for another one, and give back what is beyond so many bytes."""
        with suppress(OSError):  # a codec process has made it larger than can be mapped
            batch.trim(keep)
            self._free.append(batch)

    def submit(self, batch: SharedBatch, orders: Orders) -> None:
        """Hand over a batch. Batches are worked in the order of submission."""
        process = self.start()
        self._submitted.append(_Submitted(batch, orders))
        process.send(batch)

    def collect(self) -> tuple[list[Answer], bool]:
        """Wait at most a tick for answers about the batch that was submitted first.

        The answer for an image that ends its process is `decode.crash`, `decode.timeout` or `decode.memory`.

        Returns:
            The answers for its next images, and whether these were the last.

        Raises:
            DarkroomError: no codec process can be started.
        """
        process, submitted = self.start(), self._submitted[0]
        started = time.monotonic()
        fault = process.wait(submitted.orders)
        answers, invalid = self._take_answers(submitted)
        if not submitted.is_finished:
            fault = fault or invalid or _overdue(submitted, time.monotonic() - started)
        if fault:
            process.close()
            self._process = None
            answers += self._blame(submitted, fault)
        if submitted.is_finished:
            self._submitted.popleft()
        return answers, submitted.is_finished

    def close(self) -> None:
        """End the process, if there is one, and drop the batches that were submitted."""
        if self._process:
            self._process.close()
            self._process = None
        self._submitted.clear()
        self._idle_faults = 0

    def run(self, operation: Operation, orders: Orders, sources: Sequence[bytes | memoryview]) -> Iterator[Answer]:
        """Yield the answers for a few images; an output is valid until the next answer is requested."""
        for first in range(0, len(sources), IMAGES):
            batch = self.take_batch()
            batch.reset(orders.model_dump_json().encode())
            for source in sources[first : first + IMAGES]:
                batch.place(len(source))[:] = source
                batch.add(operation, *batch.keep(len(source)))
            finished = False
            try:
                self.submit(batch, orders)
                while not finished:
                    answers, finished = self.collect()
                    yield from answers
            finally:
                if not finished:
                    self.close()  # otherwise the next batch would get the answers for this one
            self.release(batch)

    def _take_answers(self, submitted: _Submitted) -> tuple[list[Answer], Fault | None]:
        """Return the answers that are there, and the fault if one of them requires another process."""
        answers: list[Answer] = []
        batch = submitted.batch
        while submitted.taken < min(batch.head.done, len(batch.operations)):
            try:
                answer = read_answer(batch.operations[submitted.taken], *batch.answer(submitted.taken))
            except Exception:  # noqa: BLE001 - an image may have taken control of the process
                return answers, Fault(ErrorCode.DECODE_CRASH, "the codec process answered nonsense")
            if isinstance(answer, ImageError) and answer.code is ErrorCode.DECODE_MEMORY and not submitted.tries:
                return answers, Fault(answer.code, answer.message)
            answers.append(submitted.take(answer))
            self._idle_faults = 0
        return answers, None

    def _blame(self, submitted: _Submitted, fault: Fault) -> list[Answer]:
        """Return the answer for the image that a process was at when it failed, unless it is tried again."""
        if submitted.is_finished:
            return []
        if submitted.batch.head.begun <= submitted.taken:
            self._idle_faults += 1
            if self._idle_faults >= MAX_IDLE_FAULTS:
                self._idle_faults = 0
                raise no_process(end_server() or fault.message)
            return []
        submitted.tries += 1
        tries = MAX_TRIES_FROM_OUTSIDE if fault.from_outside else MAX_TRIES
        if fault.code is not ErrorCode.DECODE_TIMEOUT and submitted.tries < tries:
            return []
        return [submitted.take(ImageError(fault.code, fault.message))]


def _overdue(submitted: _Submitted, seconds: float) -> Fault | None:
    """Return a fault if a process has been at the same image for too long, the last seconds included."""
    head, orders = submitted.batch.head, submitted.orders
    if submitted.begun != head.begun:
        submitted.begun, submitted.unchanged_seconds = head.begun, 0.0
    # A machine that was suspended for an hour has not spent an hour on the image.
    submitted.unchanged_seconds += min(seconds, TICK_SECONDS)
    allowed = START_SECONDS
    if head.begun > submitted.taken:
        least, most = orders.seconds_for(0), orders.seconds_for(orders.max_pixels)
        allowed = PATIENCE * max(least, min(most, head.seconds))
    return too_long(orders) if submitted.unchanged_seconds >= allowed else None


_threads = threading.local()


def thread_codec() -> Codec:
    """Return this thread's codec, which lives as long as the thread does."""
    if not hasattr(_threads, "codec"):
        _threads.codec = Codec()
    codec: Codec = _threads.codec
    return codec


def longest_seconds(rules: Rules) -> float:
    """Return the longest time in seconds, by the clock, that a worker may spend on an image: three processes."""
    orders = Orders(max_pixels=rules.max_pixels, max_image_seconds=rules.max_image_seconds)
    return 3 * (START_SECONDS + PATIENCE * orders.seconds_for(rules.max_pixels) + END_SECONDS)
