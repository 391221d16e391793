"""Signals that are to end a process come out as exceptions, so that every `finally` runs."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

NOTED_BYTES = 64
"""A signal is noted as a byte; who is told to end so often has been told."""


class Interruption:
    """The handler of Ctrl-C: the first raises KeyboardInterrupt, and who asks again doesn't want to wait.

    Args:
        leave: ends the process at once.
    """

    def __init__(self, leave: Callable[[], object]) -> None:
        self.leave = leave
        self._asked = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        """Interrupt what is done, or all of it."""
        if self._asked:
            self.leave()
        self._asked = True
        raise KeyboardInterrupt


@contextmanager
def sigterm_exits() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into an orderly exit: with the default handler no `finally` would run.

    One that is ignored, as by `nohup`, stays so.
    """

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    heard = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]
    with _handled(heard, leave):
        yield


@contextmanager
def deferred() -> Iterator[None]:
    """Have signals wait until the end: one that interrupts an import leaves behind a lock that others wait for."""
    waiting: list[int] = []
    heard = [number for number in ENDING if callable(signal.getsignal(number))]
    interruption = signal.getsignal(signal.SIGINT)

    def wait(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and number in waiting and isinstance(interruption, Interruption):
            interruption.leave()
        waiting.append(number)

    try:
        with _handled(heard, wait):
            yield
    finally:
        for number in waiting:
            signal.raise_signal(number)


@contextmanager
def unheard_by_children() -> Iterator[None]:
    """Have processes that are started within ignore what is sent to all of a terminal's: this one ends them."""
    with _handled((signal.SIGINT, signal.SIGHUP), signal.SIG_IGN):
        yield


@contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """Let through what a signal's handler raises, also where a library has made another exception of it.

    Libraries written in other languages, which call Python and are called by it, do so: pydantic's serializer, for
    one. Provides what raises it once more, for who gets no exception but a state.
    """
    if not _in_main_thread():  # the only one in which handlers run
        yield lambda: None
        return
    reader, writer = os.pipe()
    for end in (reader, writer):
        os.set_blocking(end, False)
    # Not by handlers of our own: Prefect cancels a run in order only as long as it finds its own in place.
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def raise_again() -> None:
        with suppress(BlockingIOError):  # there was none
            for number in os.read(reader, NOTED_BYTES):
                if number in ENDING:
                    signal.raise_signal(number)

    try:
        yield raise_again
    except Exception:
        raise_again()
        raise
    finally:
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)


@contextmanager
def _handled(
    numbers: Iterable[signal.Signals], handler: Callable[[int, FrameType | None], object] | signal.Handlers
) -> Iterator[None]:
    """Have signals handled by something else for a while; in another thread than the main one, nothing changes."""
    if not _in_main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
