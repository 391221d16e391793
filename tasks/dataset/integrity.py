"""Sealed Parquet files, which contain digests of themselves, so that damage is found before a file is used.

Parquet's own checksums cover only the contents of pages, not page headers, indexes or the footer, and DuckDB ignores
them. So the files that later steps build on have two SHA-256 digests in the key-value metadata of their footer: of the
whole file, and of the footer alone, which is quick to check. Both are computed with zeros in their place, and are
written there last.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from darkroom.tasks.errors import DamagedError
from darkroom.tasks.storage.store import Store
from darkroom.tasks.storage.store_errors import NotFound, reading

SEAL = "darkroom.sha256"
"""The key of the digests. Its value is 64 hexadecimal digits for the file and 64 for the footer."""

_BLANK = b"0" * 128
_MAGIC = b"PAR1"
_TAIL_BYTES = 65_536
"""The seal usually lies within this distance from the end: only the schema, as key-value metadata, follows it."""

_MAX_FOOTER_BYTES = 64 << 20
"""The footer of a table with thousands of columns is searched as a whole, up to this size."""

_BLOCK_BYTES = 1 << 20

_MARK = b"\x18" + bytes([len(SEAL)]) + SEAL.encode() + b"\x18\x80\x01"
"""The bytes before the seal's value: field 1, its length, the key, field 2, its length (Thrift's compact protocol)."""


class _Hashed(io.RawIOBase):
    """Writes to a file, and computes the SHA-256 of the written bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        return self._file.write(data)


@contextmanager
def sealed_writer(target: Path | io.BytesIO, schema: pa.Schema, **options: Any) -> Iterator[pq.ParquetWriter]:
    """Provide a writer of a sealed Parquet file, which is sealed at the end of the block.

    Args:
        target: a local file or a buffer.
        schema: the columns.
        options: further options of `pyarrow.parquet.ParquetWriter`.
    """
    with ExitStack() as stack:
        file = cast(BinaryIO, stack.enter_context(target.open("w+b")) if isinstance(target, Path) else target)
        sink = _Hashed(file)
        with pq.ParquetWriter(cast(Any, sink), schema, write_page_checksum=True, **options) as writer:
            yield writer
            writer.add_key_value_metadata({SEAL: _BLANK.decode()})
        at, footer = _landmarks(file)
        seal = sink.sha256.hexdigest() + _digest(file, footer, at)
        file.seek(at)
        file.write(seal.encode())


def find_damage(store: Store, path: str, *, footer_only: bool = False) -> str | None:
    """Return what is wrong with a sealed file, None if it is intact; read all of it, in bounded memory.

    Raises:
        SettingsError: this user may not read it.
        DarkroomError: the store does not answer.
        NotFound: there is no such file.
    """
    try:
        with reading(), store.open(path) as file:
            return damage(file, footer_only=footer_only)
    except OSError as error:
        return str(error)


def is_whole(store: Store, path: str) -> bool:
    """Return whether a sealed file exists and is intact.

    Raises:
        SettingsError: this user may not read it.
        DarkroomError: the store does not answer.
    """
    with suppress(NotFound):
        return not find_damage(store, path)
    return False


def check_whole(store: Store, path: str, remedy: str) -> None:
    """Make sure that a sealed file is intact, if it exists.

    Raises:
        SettingsError: this user may not read it.
        DamagedError: it is damaged; has the remedy.
    """
    with suppress(NotFound):
        if reason := find_damage(store, path):
            raise DamagedError(store.where(path), reason, remedy)


def damage(file: BinaryIO, *, footer_only: bool = False) -> str | None:
    """Return what is wrong with an open sealed file, or its footer, None if nothing; raise `OSError` if unreadable."""
    try:
        at, footer = _landmarks(file)
    except ValueError as error:
        return str(error)
    file.seek(at)
    seal = file.read(len(_BLANK))
    if seal[64:] != _digest(file, footer, at).encode():
        return "its footer is not what was written"
    if not footer_only and seal[:64] != _digest(file, 0, at).encode():
        return "it is not what was written: its checksum differs"
    return None


def _landmarks(file: BinaryIO) -> tuple[int, int]:
    """Return the offsets of a file's seal and footer; raise `ValueError` if it doesn't end like a sealed file."""
    size = file.seek(0, io.SEEK_END)
    begin = max(0, size - _TAIL_BYTES)
    file.seek(begin)
    tail = file.read()
    if tail[-4:] != _MAGIC:
        raise ValueError("it is cut short, or no Parquet file")
    footer = size - 8 - int.from_bytes(tail[-8:-4], "little")
    mark = tail.rfind(_MARK)
    if mark < 0 and len(_MAGIC) <= footer < begin:
        begin = max(footer, size - _MAX_FOOTER_BYTES)
        file.seek(begin)
        mark = (tail := file.read()).rfind(_MARK)
    if mark < 0:
        raise ValueError("its footer has no checksum")
    at = begin + mark + len(_MARK)
    if not len(_MAGIC) <= footer < at <= size - 8 - len(_BLANK):
        raise ValueError("its footer is not as long as it says")
    return at, footer


def _digest(file: BinaryIO, start: int, seal: int) -> str:
    """Return the SHA-256 of a file from an offset to the end, with zeros in place of its seal."""
    sha256 = hashlib.sha256()
    file.seek(start)
    for begin in range(start, seal, _BLOCK_BYTES):
        sha256.update(file.read(min(_BLOCK_BYTES, seal - begin)))
    sha256.update(_BLANK)
    file.seek(seal + len(_BLANK))
    sha256.update(file.read())
    return sha256.hexdigest()
