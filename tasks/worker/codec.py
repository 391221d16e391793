"""The worker's side of a codec process: submit batches, collect answers, replace the process after a fault.

A codec process returns only bytes and validated JSON, and gets no credentials: an image that takes control of a decoder
cannot make the worker run anything.
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
from darkroom.tasks.worker.shared_batch import BATCH_IMAGES, SIZE, Operation, SharedBatch

PATIENCE = 3
"""Seconds of wall-clock time allowed per second of processor time: the machine may be busy with other work."""

START_SECONDS = 120.0

MAX_TRIES = 2
"""Upper limit on the processes that an image may end."""

MAX_TRIES_FROM_OUTSIDE = 3
"""The same if the last was killed from outside."""

MAX_IDLE_FAULTS = 3
"""After this many faults in a row before any image was begun, no image can be the cause."""


@dataclass(slots=True, eq=False)
class _Submitted:
    """A batch that was submitted to the codec process."""

    batch: SharedBatch
    orders: Orders
    taken: int = 0
    """Number of images whose answers were collected."""

    tries: int = 0
    """Number of processes that ended while working on the next image."""

    last_begun: int = -1
    """`begun` in the batch's head when it was last checked."""

    unchanged_seconds: float = 0.0
    """Seconds since it changed."""

    @property
    def is_finished(self) -> bool:
        return self.taken == len(self.batch.operations)

    def take(self, answer: Answer) -> Answer:
        """Advance to the next image; return the answer."""
        self.taken += 1
        self.tries = 0
        return answer


class Codec:
    """A codec process and the batches shared with it, for one thread.

    The process is started when first needed, and again after each fault. The image that it was working on is retried in
    the new process, because earlier images may have caused the fault; and once more if that process was killed from
    outside, because a machine that runs out of memory may kill any process. A timeout is not retried. So a bad image
    ends three processes at most, and no other image fails because of it.
    """

    def __init__(self) -> None:
        self._process: ProcessHandle | None = None
        self._submitted: deque[_Submitted] = deque()
        self._free: list[SharedBatch] = []
        self._idle_faults = 0

    def start(self) -> ProcessHandle:
        """Return the process, and start it if there is none; do not wait until it is ready."""
        if self._process is None:
            self._process = ProcessHandle()
            for submitted in self._submitted:
                submitted.batch.rewind(submitted.taken)
                submitted.last_begun = -1
                self._process.send(submitted.batch)
        return self._process

    def take_batch(self) -> SharedBatch:
        """Return memory for a batch. Memory that is never released is not reused."""
        return self._free.pop() if self._free else SharedBatch.create()

    def release(self, batch: SharedBatch, keep: int = SIZE) -> None:
        """Free the memory of a batch for reuse, and return the memory beyond `keep` bytes to the system."""
        with suppress(OSError):  # drop memory that a codec process enlarged so much that it can't be mapped
            batch.trim(keep)
            self._free.append(batch)

    def submit(self, batch: SharedBatch, orders: Orders) -> None:
        """Submit a batch; the codec process works on batches in this order."""
        process = self.start()
        self._submitted.append(_Submitted(batch, orders))
        process.send(batch)

    def collect(self) -> tuple[list[Answer], bool]:
        """Wait up to `TICK_SECONDS` for answers for the oldest submitted batch.

        Returns:
            The answers for its next images, and whether the batch is finished. The answer for an image that ends its
            processes is `decode.crash`, `decode.timeout` or `decode.memory`.

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
        """End the process, if there is one, and forget the submitted batches."""
        if self._process:
            self._process.close()
            self._process = None
        self._submitted.clear()
        self._idle_faults = 0

    def run(self, operation: Operation, orders: Orders, sources: Sequence[bytes | memoryview]) -> Iterator[Answer]:
        """Yield an answer for each source; an output is valid until the next answer is requested."""
        for first in range(0, len(sources), BATCH_IMAGES):
            batch = self.take_batch()
            batch.reset(orders.model_dump_json().encode())
            for source in sources[first : first + BATCH_IMAGES]:
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
                    self.close()  # otherwise `collect` would return answers for this batch first
            self.release(batch)

    def _take_answers(self, submitted: _Submitted) -> tuple[list[Answer], Fault | None]:
        """Return the answers written so far, up to one that requires another process, and the fault if there is one."""
        answers: list[Answer] = []
        batch = submitted.batch
        while submitted.taken < min(batch.head.done, len(batch.operations)):
            try:
                answer = read_answer(batch.operations[submitted.taken], *batch.answer(submitted.taken))
            except Exception:  # noqa: BLE001 - an image may have taken control of the process
                return answers, Fault(ErrorCode.DECODE_CRASH, "the codec process returned an invalid answer")
            if isinstance(answer, ImageError) and answer.code is ErrorCode.DECODE_MEMORY and not submitted.tries:
                return answers, Fault(answer.code, answer.message)
            answers.append(submitted.take(answer))
            self._idle_faults = 0
        return answers, None

    def _blame(self, submitted: _Submitted, fault: Fault) -> list[Answer]:
        """Return the answer for the image that the process was working on; none if the image is retried.

        Raises `DarkroomError` after `MAX_IDLE_FAULTS`.
        """
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
    """Return a fault if a process has worked on one image for too long; `seconds` have passed since the last check."""
    head, orders = submitted.batch.head, submitted.orders
    if submitted.last_begun != head.begun:
        submitted.last_begun, submitted.unchanged_seconds = head.begun, 0.0
    # The limit discounts the time for which the machine was suspended.
    submitted.unchanged_seconds += min(seconds, TICK_SECONDS)
    allowed = START_SECONDS
    if head.begun > submitted.taken:
        least, most = orders.seconds_for(0), orders.seconds_for(orders.max_pixels)
        allowed = PATIENCE * max(least, min(most, head.seconds))
    return too_long(orders) if submitted.unchanged_seconds >= allowed else None


_threads = threading.local()


def thread_codec() -> Codec:
    """Return this thread's codec, which exists until the thread ends."""
    if not hasattr(_threads, "codec"):
        _threads.codec = Codec()
    codec: Codec = _threads.codec
    return codec


def longest_seconds(rules: Rules) -> float:
    """Return the longest wall-clock time in seconds that a worker may spend on an image: that of three processes."""
    orders = Orders(max_pixels=rules.max_pixels, max_image_seconds=rules.max_image_seconds)
    return 3 * (START_SECONDS + PATIENCE * orders.seconds_for(rules.max_pixels) + END_SECONDS)
