"""Read parts of an object as a file."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any

FIRST_BYTES = 1 << 20
"""Size of the first request: most opened objects are smaller, and need no other."""

MAX_BLOCK_BYTES = 16 << 20
"""Sequential reads double the size of blocks up to this."""


class RangedFile(io.RawIOBase):
    """Reads ranges of an object, and keeps the last one.

    Args:
        read: returns the bytes from a position up to, but not including, another.
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
        """Read into memory; return the number of bytes, 0 at the end."""
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
