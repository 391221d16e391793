"""Read in background threads that can be abandoned.

A read of a network file system may never return, and Python cannot interrupt it. So no read waits for the thread of
another, and threads are daemons: a hung read delays neither other reads nor the end of its shard or process.
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
"""If more reads of a shard hang, the cause is the source, not its files."""

P = ParamSpec("P")
T = TypeVar("T")


class Readers:
    """The reads of a shard; each may take `seconds` after its result is requested."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._hung = 0
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads = 0
        self._idle = threading.Semaphore(0)
        """Counts threads that wait for a call."""

    def start(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call a function in an idle thread, or in a new one, and return the future of its result."""
        future: Future[T] = Future()
        self._calls.put(partial(_call, future, partial(function, *args, **kwargs)))
        if not self._idle.acquire(blocking=False):
            self._threads += 1
            threading.Thread(target=self._work, name="read", daemon=True).start()
        return future

    def results(self, futures: Sequence[Future[T]]) -> list[T]:
        """Wait for reads, and return their results or raise the first exception.

        Raises:
            TimeoutError: one hangs.
            DarkroomError: more than `MAX_HUNG` reads hang.
        """
        wait(futures, self._seconds)
        if all(future.done() for future in futures):
            return [future.result() for future in futures]
        self._hung += 1
        if self._hung > MAX_HUNG:
            raise DarkroomError(
                f"The source does not answer: {MAX_HUNG} reads took longer than max_read_seconds = {self._seconds:g}. "
                "Check that it can be read from this worker's machine."
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
