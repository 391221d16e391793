"""Standard input, output and error: they may be closed, or lead to where nothing can be written."""

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
        return f"The output could not be printed: {self.args[0]}. What the command did is done, and is kept."


class _Output(io.FileIO):
    """Standard output, whose errors are not those of any other file."""

    def write(self, data: Any, /) -> int:
        """Write bytes; see `io.RawIOBase.write`."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader has seen enough, such as `head`
                raise
            raise OutputError(os.strerror(error.errno or 0)) from error


class _Errors(io.FileIO):
    """Standard error: a run goes on if what it writes there is lost."""

    def write(self, data: Any, /) -> int:
        """Write bytes, or lose them; see `io.RawIOBase.write`."""
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def open_streams() -> None:
    """Make the standard streams safe to use: open those that are closed, and replace how the others fail.

    A descriptor of theirs that is closed would be given to the next file that is opened, such as a socket of the
    Prefect server, and then be inherited as its standard output.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one
            os.set_inheritable(number, True)
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115 - lives as long as the process
    sys.stdout = _text(_Output(1 if sys.stdout else os.devnull, "w", closefd=not sys.stdout), sys.stdout)
    sys.stderr = _text(_Errors(2 if sys.stderr else os.devnull, "w", closefd=not sys.stderr), sys.stderr)


def _text(raw: io.FileIO, former: TextIO | None) -> io.TextIOWrapper:
    """Return a text stream with the encoding of the one that it replaces, which is None if that was closed."""
    encoding, handling = (former.encoding, former.errors) if former else ("utf-8", "backslashreplace")
    at_once = raw.isatty() or isinstance(raw, _Errors)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, handling, line_buffering=at_once)


def flush_output() -> None:
    """Write out what standard output still holds.

    Raises:
        OutputError: that fails, for another reason than a reader that has seen enough.
    """
    with suppress(BrokenPipeError):
        sys.stdout.flush()
