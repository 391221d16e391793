"""Parquet files that carry digests of themselves, so that damage is found before anything is built on them.

The checksums that Parquet has are those of pages: a flipped bit in the header of a page, in an index or in the footer
is in none of them, and DuckDB looks at none. So what a run is based on also has, in the key-value metadata of its
footer, the SHA-256 of the whole file, and that of its footer alone, which is told in a moment; both are taken with
zeros in their place, and put there once the file is written.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from darkroom.tasks.errors import DamagedError, SettingsError

SEAL = "darkroom.sha256"
"""The key. Its value is 64 hexadecimal digits for the file and 64 for the footer."""

_BLANK = b"0" * 128
_MAGIC = b"PAR1"
_TAIL_BYTES = 65_536
"""So close to the end of the file is the seal: after it come only the rest of the key-value metadata, and no rows."""

_BLOCK_BYTES = 1 << 20

_MARK = b"\x18" + bytes([len(SEAL)]) + SEAL.encode() + b"\x18\x80\x01"
"""What comes before the seal's value: field 1, its length, the key, field 2, its length (Thrift's compact protocol)."""


class _HashedFile(io.BufferedWriter):
    """A file that knows the SHA-256 of what it was told to write."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path, "w"))
        self.sha256 = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        return super().write(data)


@contextmanager
def sealed_writer(path: Path, schema: pa.Schema, **options: Any) -> Iterator[pq.ParquetWriter]:
    """Write a Parquet file of which `damage` can tell whether it is what was written.

    Args:
        path: the file. It is not whole before the end, so give it another name then.
        schema: its columns.
        options: more of `pyarrow.parquet.ParquetWriter`.
    """
    with (
        _HashedFile(path) as sink,
        pq.ParquetWriter(cast(Any, sink), schema, write_page_checksum=True, **options) as writer,
    ):
        yield writer
        writer.add_key_value_metadata({SEAL: _BLANK.decode()})
    with path.open("rb+") as file:
        at, footer = _landmarks(file)
        seal = sink.sha256.hexdigest() + _digest(file, footer, at)
        file.seek(at)
        file.write(seal.encode())


def damage(file: Path) -> str | None:
    """Say what is wrong with a file of `sealed_writer`, reading all of it in bounded memory; None if it is whole.

    Raises:
        SettingsError: this user may not read it.
        FileNotFoundError: there is none.
    """
    return _damage(file, footer_only=False)


def check_whole(file: Path, remedy: str) -> None:
    """Make sure that a file of `sealed_writer` is what was written; it need not be there.

    Raises:
        SettingsError: this user may not read it.
        DamagedError: it is not; has the remedy.
    """
    with suppress(FileNotFoundError):
        if reason := damage(file):
            raise DamagedError(file, reason, remedy)


def footer_damage(file: Path) -> str | None:
    """Say what is wrong with the footer of a file of `sealed_writer`, reading nothing else; None if it is whole.

    Raises:
        SettingsError: this user may not read it.
        FileNotFoundError: there is none.
    """
    return _damage(file, footer_only=True)


def _damage(path: Path, *, footer_only: bool) -> str | None:
    try:
        with path.open("rb") as file:
            at, footer = _landmarks(file)
            file.seek(at)
            seal = file.read(len(_BLANK))
            if seal[64:] != _digest(file, footer, at).encode():
                return "its footer is not what was written"
            if not footer_only and seal[:64] != _digest(file, 0, at).encode():
                return "it is not what was written: its checksum is another"
    except FileNotFoundError:
        raise
    except PermissionError as error:
        raise SettingsError(f"{path} can't be read. Grant this user permission to read it.") from error
    except (OSError, ValueError) as error:
        return str(error)
    return None


def _landmarks(file: BinaryIO) -> tuple[int, int]:
    """Return where the seal is in a file, and where the footer begins.

    Raises:
        ValueError: it doesn't end as a sealed file does.
    """
    size = file.seek(0, io.SEEK_END)
    begin = max(0, size - _TAIL_BYTES)
    file.seek(begin)
    tail = file.read()
    if tail[-4:] != _MAGIC:
        raise ValueError("it is cut short, or no Parquet file")
    footer = size - 8 - int.from_bytes(tail[-8:-4], "little")
    mark = tail.rfind(_MARK)
    if mark < 0:
        raise ValueError("its footer has no checksum")
    at = begin + mark + len(_MARK)
    if not len(_MAGIC) <= footer < at <= size - 8 - len(_BLANK):
        raise ValueError("its footer is not as long as it says")
    return at, footer


def _digest(file: BinaryIO, start: int, seal: int) -> str:
    """Return the SHA-256 of a file from somewhere before its seal on, as if that were not filled in yet."""
    sha256 = hashlib.sha256()
    file.seek(start)
    for begin in range(start, seal, _BLOCK_BYTES):
        sha256.update(file.read(min(_BLOCK_BYTES, seal - begin)))
    sha256.update(_BLANK)
    file.seek(seal + len(_BLANK))
    sha256.update(file.read())
    return sha256.hexdigest()
