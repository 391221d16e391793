"""Reads in background threads that can be abandoned.

A read of a network file system may never return, and nothing in Python can interrupt it. So no read waits for another
one's thread, and the threads are daemons: a read that hangs delays neither other reads nor the end of its shard or
process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from functools import partial
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

from darkroom.tasks.errors import DarkroomError

MAX_HUNG = 8
"""After this many reads of a shard that hang, the files are not the cause."""

P = ParamSpec("P")
T = TypeVar("T")


class Readers:
    """The reads of a shard, each of which may take `seconds` once its result is needed."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._hung = 0
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads = 0
        self._idle = threading.Semaphore(0)
        """Counts threads that wait for a call."""

    def start(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call a function in a thread that has nothing else to do, a new one if need be."""
        future: Future[T] = Future()
        self._calls.put(partial(_call, future, partial(function, *args, **kwargs)))
        if not self._idle.acquire(blocking=False):
            self._threads += 1
            threading.Thread(target=self._work, name="read", daemon=True).start()
        return future

    def results(self, futures: Sequence[Future[T]]) -> list[T]:
        """Wait for reads to end and return their results.

        Raises:
            TimeoutError: one takes longer than a read may.
            DarkroomError: too many reads do.
        """
        wait(futures, self._seconds)
        if all(future.done() for future in futures):
            return [future.result() for future in futures]
        self._hung += 1
        if self._hung > MAX_HUNG:
            raise DarkroomError(
                f"The source does not answer: {MAX_HUNG} reads took longer than max_read_seconds = {self._seconds:g}. "
                "See that it can be read from this worker's machine."
            )
        raise TimeoutError

    def close(self) -> None:
        """End the threads, each once its read has ended."""
        for _ in range(self._threads):
            self._calls.put(None)

    def _work(self) -> None:
        while call := self._calls.get():
            call()
            del call  # and with it the memory that it has read into
            self._idle.release()


def _call(future: Future[Any], function: Callable[[], Any]) -> None:
    try:
        future.set_result(function())
    except BaseException as error:  # noqa: BLE001 - `results` raises it
        future.set_exception(error)
