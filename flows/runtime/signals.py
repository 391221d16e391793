"""Turn the signals that end a process into exceptions, so that every `finally` runs."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

PIPE_BYTES = 64
"""Python writes a byte for each signal to a pipe; reading up to this many at a time is enough."""

ECHO_SECONDS = 0.1
"""`timeout` and others signal a process and then its group: a signal this soon after another repeats it."""

_signals: int | None = None
"""Descriptor from which to read the numbers of the signals that came within `interruptible`."""


class Ending:
    """A signal handler that raises KeyboardInterrupt for Ctrl-C, and SystemExit for other signals.

    Args:
        on_first: called when the first signal comes.
        on_second: called when a signal comes again; if None, or if it returns, the exception is raised again.
    """

    def __init__(
        self, on_first: Callable[[], object] | None = None, on_second: Callable[[], object] | None = None
    ) -> None:
        self._on_first = on_first
        self._on_second = on_second
        self._at: float | None = None

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        """Raise the signal's exception, unless the signal is an echo."""
        if self.accept():
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    def accept(self) -> bool:
        """Record a signal, and return whether it is not just an echo of the one before."""
        before, now = self._at, time.monotonic()
        self._at = now
        if before is None:
            if self._on_first:
                self._on_first()
                self._on_first = None  # after `reset`, the first signal only comes again
            return True
        if now - before < ECHO_SECONDS:
            return False
        if self._on_second:
            self._on_second()
        return True

    def reset(self) -> None:
        """Treat the next signal as the first, as it repeats one whose exception was lost."""
        self._at = None


@contextmanager
def sigterm_exits() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into an orderly exit: with the default handler no `finally` would run.

    A signal that is ignored, as by `nohup`, stays ignored.
    """
    numbers = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]
    with _handled(numbers, Ending()):
        yield


@contextmanager
def deferred() -> Iterator[None]:
    """Defer signals until the block ends: an interrupted import can leave its module lock held."""
    waiting: list[int] = []
    handlers = {number: signal.getsignal(number) for number in ENDING}

    def defer(number: int, _frame: FrameType | None) -> None:
        handler = handlers[signal.Signals(number)]
        if not isinstance(handler, Ending) or handler.accept():
            waiting.append(number)

    try:
        with _handled([number for number, handler in handlers.items() if callable(handler)], defer):
            yield
    finally:
        for number in waiting:
            _raise_again(number)


@contextmanager
def ignored_by_children() -> Iterator[None]:
    """Let child processes started in the block ignore signals of the terminal, as this process ends them."""
    with _handled((signal.SIGINT, signal.SIGHUP), signal.SIG_IGN):
        yield


@contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """Raise a signal's exception when the block ends with another one that has displaced it.

    Native libraries that call back into Python, such as pydantic's serializer, replace the exception by their own;
    Python only prints it in `__del__` and in callbacks of the garbage collector, of which Dask has one. Provides
    `raise_lost` for callers that get a state instead of an exception.
    """
    global _signals  # noqa: PLW0603 - a process has one wakeup descriptor
    if not _in_main_thread():  # the only thread in which handlers run
        yield lambda: None
        return
    reader, writer = os.pipe()
    for end in (reader, writer):
        os.set_blocking(end, False)
    # A handler would not do: Prefect's orderly cancellation needs its own handler in place.
    before, _signals = (signal.set_wakeup_fd(writer, warn_on_full_buffer=False), _signals), reader
    print_ignored, sys.unraisablehook = sys.unraisablehook, _without_signals(sys.unraisablehook)
    try:
        yield raise_lost
    except Exception:
        raise_lost()
        raise
    finally:
        sys.unraisablehook = print_ignored
        signal.set_wakeup_fd(before[0])
        _signals = before[1]
        os.close(reader)
        os.close(writer)


def _without_signals(print_ignored: Callable[[Any], object]) -> Callable[[Any], object]:
    """Return an `unraisablehook` that does not print the exceptions of signals, which `raise_lost` raises again."""

    def hook(ignored: Any) -> None:
        if not isinstance(ignored.exc_value, (KeyboardInterrupt, SystemExit)):
            print_ignored(ignored)

    return hook


def raise_lost() -> None:
    """Raise the exception of a signal that came within `interruptible` and whose exception was lost."""
    if _signals is None or not _in_main_thread():
        return
    with suppress(BlockingIOError):  # no signal came
        for number in os.read(_signals, PIPE_BYTES):
            if number in ENDING:
                _raise_again(number)


def _raise_again(number: int) -> None:
    handler = signal.getsignal(number)
    if isinstance(handler, Ending):
        handler.reset()
    signal.raise_signal(number)


@contextmanager
def _handled(
    numbers: Iterable[signal.Signals], handler: Callable[[int, FrameType | None], object] | signal.Handlers
) -> Iterator[None]:
    """Set the handler of signals in the block; do nothing outside the main thread, where Python forbids it."""
    if not _in_main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def exit_at_once(code: int) -> NoReturn:
    """Kill all child processes and exit, without waiting for anything."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()
    os._exit(code)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
