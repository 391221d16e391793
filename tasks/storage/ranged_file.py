"""An object as a file for reading parts of it."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any

FIRST_BYTES = 1 << 20
"""Read at once: most objects that are opened are smaller, and need no further request."""

MAX_BLOCK_BYTES = 16 << 20
"""What is read on from where the last block ended comes in blocks that double up to this."""


class RangedFile(io.RawIOBase):
    """Reads ranges of an object, and keeps the last one.

    Args:
        read: returns the bytes from one position to before another.
        size: the object's size in bytes.
        start: the object's first bytes.
    """

    def __init__(self, read: Callable[[int, int], bytes], size: int, start: bytes) -> None:
        self._read = read
        self._size = size
        self._block = start
        self._begin = 0
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Change the position."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read into memory; return how many bytes that are, 0 at the end."""
        view = memoryview(buffer).cast("B")
        if self._position >= self._size or not view:
            return 0
        if not self._begin <= self._position < self._begin + len(self._block):
            self._fetch(len(view))
        at = self._position - self._begin
        part = self._block[at : at + len(view)]
        view[: len(part)] = part
        self._position += len(part)
        return len(part)

    def _fetch(self, wanted: int) -> None:
        follows = self._position == self._begin + len(self._block)
        length = max(wanted, FIRST_BYTES, min(2 * len(self._block), MAX_BLOCK_BYTES) if follows else 0)
        self._block = self._read(self._position, min(self._size, self._position + length))
        self._begin = self._position
