"""Threads that read ahead, and that can be given up.

A read of a network file system may never return, and nothing in Python can end it. So these threads are daemons:
one in which a read hangs is replaced by another, and holds up neither its shard nor the end of its process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

from darkroom.tasks.errors import DarkroomError

MAX_GIVEN_UP = 8
"""When so many reads of a shard hang, it isn't for the files."""

P = ParamSpec("P")
T = TypeVar("T")


class Readers:
    """A few threads that work through what is submitted, in order.

    Args:
        count: number of threads.
        seconds: how long anyone waits for a read to end.
    """

    def __init__(self, count: int, seconds: float) -> None:
        self._seconds = seconds
        self._waiting: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads = 0
        self._given_up = 0
        self._closed = False
        for _ in range(count):
            self._start()

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have a function called in one of the threads."""
        future: Future[T] = Future()
        self._waiting.put(lambda: _call(future, function, *args, **kwargs))
        return future

    def result(self, future: Future[T]) -> T:
        """Wait for what was submitted and return its result.

        Raises:
            TimeoutError: it takes longer than anyone waits; its thread is given up.
            DarkroomError: too many threads had to be given up.
        """
        try:
            return future.result(self._seconds)
        except TimeoutError:
            if future.done():
                return future.result()
            self._give_up()
            raise

    def _give_up(self) -> None:
        self._given_up += 1
        if self._given_up > MAX_GIVEN_UP:
            raise DarkroomError(
                f"The source does not answer: {MAX_GIVEN_UP} reads took longer than max_read_seconds = "
                f"{self._seconds:g}. See that it can be read from this worker's machine."
            )
        self._start()

    def _start(self) -> None:
        self._threads += 1
        threading.Thread(target=self._work, name="read", daemon=True).start()

    def _work(self) -> None:
        while (call := self._waiting.get()) and not self._closed:
            call()

    def close(self) -> None:
        """Let the threads end after what they are at, without waiting for it; nothing else is begun."""
        self._closed = True
        for _ in range(self._threads):
            self._waiting.put(None)


def _call(future: Future[Any], function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(function(*args, **kwargs))
    except BaseException as error:  # noqa: BLE001 - it is for whoever waits
        future.set_exception(error)
