"""Read in background threads that can be abandoned.

A read of a network file system may never return, and Python cannot interrupt it. So each read has its own daemon
thread: a hung read delays neither other reads nor the end of its shard or process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
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

    def start(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call a function in a new thread, and return the future of its result."""
        future: Future[T] = Future()
        arguments = (future, function, *args)
        threading.Thread(target=_call, args=arguments, kwargs=kwargs, name="read", daemon=True).start()
        return future

    def result(self, future: Future[T]) -> T:
        """Wait for a read, and return its result or raise its exception.

        Raises:
            TimeoutError: it hangs.
            DarkroomError: more than `MAX_HUNG` reads hang.
        """
        wait([future], self._seconds)
        if future.done():
            return future.result()
        self._hung += 1
        if self._hung > MAX_HUNG:
            raise DarkroomError(
                f"The source does not answer: {MAX_HUNG} reads took longer than max_read_seconds = {self._seconds:g}. "
                "Check that it can be read from this worker's machine."
            )
        raise TimeoutError


def _call(future: Future[Any], function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    try:
        future.set_result(function(*args, **kwargs))
    except BaseException as error:  # noqa: BLE001 - `result` raises it
        future.set_exception(error)
