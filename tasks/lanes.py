"""The two ways of an image through its transform: here, or with care in a process of its own.

Nothing in Python can interrupt a decoder that does not come back: it is C code, and may hold the interpreter's lock.
Here, a deadline can only end the whole process. Dask then starts another, which goes the careful way, finds the
image and records it.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from tasks.imaging import Transformed, transform
from tasks.isolate import Isolated
from tasks.recipe import Job

Make: TypeAlias = Callable[[bytes], Transformed]
"""Makes an output of an image file's bytes; raises `ImageError`, or `DarkroomError` if it could not be tried."""

_lock = threading.Lock()
_due: dict[int, float] = {}
"""By thread: when its block is to be left, by `time.monotonic`."""


@contextmanager
def fast_lane(job: Job) -> Iterator[Make]:
    """Provide the transform as it is. A decoder that crashes, or overstays `max_image_seconds`, ends this process."""
    recipe, rules = job.recipe, job.rules

    def make(data: bytes) -> Transformed:
        with deadline(rules.max_image_seconds):
            return transform(data, recipe, rules.max_pixels)

    yield make


@contextmanager
def careful_lane(job: Job, memory: int | None) -> Iterator[Make]:
    """Provide the transform in a child process: what brings that down is an `ImageError`.

    `memory` is how many bytes it may take in any case; None: as many as the image's size gives reason to.
    """
    with Isolated(job.recipe, job.rules, memory) as isolated:
        yield isolated


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """End this process, by SIGALRM, unless the block is left within so many seconds.

    An alarm is the kernel's: it needs no lock of the interpreter, and costs a microsecond. Time in which the
    machine is suspended does not count. Threads have deadlines of their own; a main thread has none, because its
    alarms are somebody else's. Dask's tasks run in other threads.
    """
    if threading.current_thread() is threading.main_thread():
        yield
        return
    thread = threading.get_ident()
    _set_alarm(thread, time.monotonic() + seconds)
    try:
        yield
    finally:
        _set_alarm(thread, None)


def _set_alarm(thread: int, due: float | None) -> None:
    with _lock:
        if due is None:
            del _due[thread]
        else:
            _due[thread] = due
        # There is one alarm for all threads; zero would turn it off.
        left = max(min(_due.values()) - time.monotonic(), 1e-6) if _due else 0.0
        signal.setitimer(signal.ITIMER_REAL, left)
