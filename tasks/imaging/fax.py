"""Find damage in fax-coded TIFFs, which libtiff decodes to white lines without an error."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import cv2
import numpy as np

FAX_ERROR = re.compile(rb"Fax[34]\w*: (?!Try to decode)")
"""A message of libtiff's fax decoders, except one about an unusual encoding that they decode nevertheless."""

STDERR = 2


def has_damaged_lines(data: bytes) -> bool:
    """Return whether libtiff reports damaged lines in a fax-coded TIFF.

    It reports them only on stderr, and only OpenCV's copy of it has such messages enabled.
    """
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_WARNING)
    try:
        with _captured_stderr() as read_messages, suppress(cv2.error):
            cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        return FAX_ERROR.search(read_messages()) is not None
    finally:
        cv2.utils.logging.setLogLevel(level)


@contextmanager
def _captured_stderr() -> Iterator[Callable[[], bytes]]:
    """Redirect file descriptor 2 in the block; yield a function that returns its first 64 KB after the block.

    The descriptor belongs to the whole process, so no other thread may write to it.
    """
    reader, writer = os.pipe()
    collected = bytearray()
    saved: int | None = None
    with suppress(OSError):  # stderr may be closed
        saved = os.dup(STDERR)
    # Messages that do not fit into the pipe are dropped.
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
