"""Standard input, output and error, which may be closed or not writable."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import Any, TextIO

from darkroom.tasks.errors import DarkroomError


class OutputError(DarkroomError):
    """Standard output can't be written to."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)

    def __str__(self) -> str:
        return f"The output could not be printed: {self.args[0]}. The command's work is kept."


class _Output(io.FileIO):
    """Standard output; its errors are `OutputError`s."""

    def write(self, data: Any, /) -> int:
        """Write bytes; see `io.RawIOBase.write`."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader, such as `head`, has seen enough
                self._discard()
                return memoryview(data).nbytes
            raise OutputError(os.strerror(error.errno or 0)) from error

    def _discard(self) -> None:
        """Drop what is still to be written."""
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), self.fileno())


class _Errors(io.FileIO):
    """Standard error; failed writes are ignored, so that a run goes on."""

    def write(self, data: Any, /) -> int:
        """Write bytes, or drop them; see `io.RawIOBase.write`."""
        written: int | None = None
        with suppress(OSError):
            written = super().write(data)  # None if it would block
        return memoryview(data).nbytes if written is None else written


def open_streams() -> None:
    """Make the standard streams safe to use: open closed ones, and change how the others fail.

    The next file that is opened would get a closed stream's descriptor: a child process would then have, for example, a
    socket as its standard output.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
            os.set_inheritable(number, True)
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115 - lives as long as the process
    sys.stdout = _text(_Output(1 if sys.stdout else os.devnull, "w", closefd=not sys.stdout), sys.stdout)
    sys.stderr = _text(_Errors(2 if sys.stderr else os.devnull, "w", closefd=not sys.stderr), sys.stderr)


def _text(raw: io.FileIO, former: TextIO | None) -> io.TextIOWrapper:
    """Return a text stream with the encoding of the former stream; that is None if it was closed."""
    encoding = former.encoding if former else "utf-8"
    at_once = raw.isatty() or isinstance(raw, _Errors)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=at_once)
