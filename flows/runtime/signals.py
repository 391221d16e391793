"""Signals that are to end a process come out as exceptions, so that every `finally` runs."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

NOTED_BYTES = 64
"""A signal is noted as a byte; who is told to end so often has been told."""

ECHO_SECONDS = 0.1
"""`timeout` and others signal a process and then its whole group: what comes so soon after another is the same."""

SWALLOWED_SECONDS = 0.2
"""What Python could not pass on is told again so much later, and so is no echo."""


class Ending:
    """A handler that raises KeyboardInterrupt for Ctrl-C, and SystemExit for the others.

    Args:
        insisted: ends the process at once, for who asks again and doesn't want to wait. Without it, the exception is
            raised again.
    """

    def __init__(self, insisted: Callable[[], object] | None = None) -> None:
        self._insisted = insisted
        self._at: float | None = None

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        """Raise, unless that was done just now."""
        if self.heard():
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    def heard(self) -> bool:
        """Note that a signal came, and say whether it is more than the echo of the one before."""
        before, now = self._at, time.monotonic()
        self._at = now
        if before is None:
            return True
        if now - before < ECHO_SECONDS:
            return False
        if self._insisted:
            self._insisted()
        return True

    def forget(self) -> None:
        """Take the next signal for the first one, as when that was lost on the way or is told once more."""
        self._at = None


@contextmanager
def sigterm_exits() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into an orderly exit: with the default handler no `finally` would run.

    One that is ignored, as by `nohup`, stays so.
    """
    heard = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]
    with _handled(heard, Ending()), _not_swallowed():
        yield


@contextmanager
def deferred() -> Iterator[None]:
    """Have signals wait until the end: one that interrupts an import leaves behind a lock that others wait for."""
    waiting: list[int] = []
    handlers = {number: signal.getsignal(number) for number in ENDING}

    def wait(number: int, _frame: FrameType | None) -> None:
        handler = handlers[signal.Signals(number)]
        if not isinstance(handler, Ending) or handler.heard():
            waiting.append(number)

    try:
        with _handled([number for number, handler in handlers.items() if callable(handler)], wait):
            yield
    finally:
        for number in waiting:
            _raise_again(number)


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
                    _raise_again(number)

    try:
        with _not_swallowed():
            yield raise_again
    except Exception:
        raise_again()
        raise
    finally:
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)


@contextmanager
def _not_swallowed() -> Iterator[None]:
    """Tell the process again what came where Python can't pass an exception on, and only prints it.

    That is in callbacks of the garbage collector, of which Dask has one, in those of weak references, and in `__del__`.
    """
    if not _in_main_thread():
        yield
        return
    before = sys.unraisablehook

    def tell_again(swallowed: sys.UnraisableHookArgs) -> None:
        if number := _raised_for(swallowed.exc_value):
            _forget(number)
            # Not a threading.Thread: the garbage collector may have come while one was being started.
            _thread.start_new_thread(_tell_later, (number,))
        else:
            before(swallowed)

    sys.unraisablehook = tell_again
    try:
        yield
    finally:
        sys.unraisablehook = before


def _raised_for(error: BaseException | None) -> int | None:
    """Return the number of the signal for which an exception was raised, if it was for one."""
    if isinstance(error, KeyboardInterrupt):
        return signal.SIGINT
    code = error.code if isinstance(error, SystemExit) else None
    number = code - 128 if isinstance(code, int) else getattr(error, "signal", None)  # of Prefect's TerminationSignal
    return number if number in ENDING else None


def _tell_later(number: int) -> None:
    time.sleep(SWALLOWED_SECONDS)
    main = threading.main_thread().ident
    if main is not None:
        signal.pthread_kill(main, number)


def _raise_again(number: int) -> None:
    _forget(number)
    signal.raise_signal(number)


def _forget(number: int) -> None:
    handler = signal.getsignal(number)
    if isinstance(handler, Ending):
        handler.forget()


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
