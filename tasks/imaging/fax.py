"""Damage in fax-coded pictures, which libtiff decodes to white lines without an error."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import cv2
import numpy as np

LOST_LINES = re.compile(rb"Fax[34]\w*: (?!Try to decode)")
"""A complaint of libtiff's fax decoders, but for one of a way of coding that it understands nevertheless."""

STDERR = 2


def has_damaged_lines(data: bytes) -> bool:
    """Return whether libtiff complains of the lines of a fax-coded TIFF.

    Only what it writes to stderr says so, and only OpenCV's copy of it writes warnings there.
    """
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_WARNING)
    try:
        with _native_messages() as read_messages, suppress(cv2.error):
            cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        return LOST_LINES.search(read_messages()) is not None
    finally:
        cv2.utils.logging.setLogLevel(level)


@contextmanager
def _native_messages() -> Iterator[Callable[[], bytes]]:
    """Collect what is written to file descriptor 2 in the block, instead of writing it.

    Yields a function that returns the first of it after the block. The descriptor belongs to the whole process: there
    must be no other threads that write to it.
    """
    reader, writer = os.pipe()
    collected = bytearray()
    saved: int | None = None
    with suppress(OSError):  # it may be closed
        saved = os.dup(STDERR)
    # What is more than fits into the pipe is lost.
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    os.dup2(writer, STDERR)
    try:
        yield lambda: bytes(collected)
    finally:
        if saved is None:
            os.close(STDERR)
        else:
            os.dup2(saved, STDERR)
            os.close(saved)
        os.close(writer)
        with suppress(BlockingIOError):
            collected += os.read(reader, 1 << 16)
        os.close(reader)
