"""The interface to a source or a destination: objects with `/`-separated names that are read and written whole.

Paths are text, relative to the store, as `darkroom.tasks.storage.naming.path_to_text` makes them. Every method raises a
`StorageError` if it fails.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Literal, Protocol, TypeAlias

from darkroom.tasks.storage.store_errors import NotFound

if TYPE_CHECKING:
    import pyarrow as pa

Place: TypeAlias = Callable[[int], memoryview]
"""Returns memory of so many bytes to read an object into; it may return the same memory again at the next call."""

BATCH_ROWS = 65_536
"""Rows of a listing that are held in memory at a time."""


@cache
def list_schema() -> pa.Schema:
    """Return the schema of listings.

    Size and times are null for what can't be examined; size is -1 for what is no regular file.
    """
    import pyarrow as pa  # which takes a tenth of a second, and few commands need it

    return pa.schema(
        [
            pa.field("path", pa.string(), nullable=False),
            pa.field("size", pa.int64()),
            pa.field("mtime", pa.timestamp("us", tz="UTC")),
            pa.field("ctime", pa.timestamp("us", tz="UTC")),
            pa.field("etag", pa.string()),
        ]
    )


class Absent(Enum):
    """The type of `ABSENT`."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT
"""Expected by a `put` that may only create an object."""


@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """What distinguishes versions of an object without reading it; only local files have a ctime, and they no etag.

    Versions with an etag are the same if that and the size are.
    """

    size: int | None
    mtime: datetime | None
    etag: str | None = None
    ctime: datetime | None = None
    """When the file's status last changed. A program can't set it, as it can the mtime, but a rename or another link
    changes it, too: two versions of different ctime may be the same."""

    generation: str | None = None
    """What Google Cloud Storage wants instead of the etag in a conditional put."""

    def __eq__(self, other: object) -> bool:
        """Return whether two versions are the same, as far as they show."""
        return isinstance(other, Version) and self._identity() == other._identity()

    def __hash__(self) -> int:
        """Return the hash of a value."""
        return hash(self._identity())

    def _identity(self) -> tuple[int | None, datetime | None, str | None]:
        return self.size, None if self.etag else self.mtime, self.etag


@dataclass(frozen=True, slots=True)
class Object:
    """An object's bytes, and the version that they are."""

    data: memoryview
    version: Version


@dataclass(slots=True)
class Skipped:
    """What a listing left out, and why."""

    counts: Counter[str] = field(default_factory=Counter)
    """Number of entries by reason: those of the caller's `skip`, and `special` (a socket, a device), `linked_folder`,
    `outside` (a symbolic link that leads out of the store), `unreadable_folder`."""

    unreadable: list[str] = field(default_factory=list)
    """Folders that could not be listed: what is below them is unknown, not gone."""


Skip: TypeAlias = Callable[[str], str | None]
"""Returns why a listing leaves out a path, or None if it doesn't; the path of a folder ends with `/`."""


class Source(Protocol):
    """Where images are read."""

    is_remote: bool = False
    """Whether each request waits for a network, so that many are worth having under way at a time."""

    def __hash__(self) -> int:
        """Return the hash of a value: stores of the same location are equal."""
        return hash(self.location)

    @property
    def location(self) -> str:
        """Where the store is, as users write it."""

    def where(self, path: str) -> str:
        """Return where an object is, as users write it."""
        return f"{self.location}/{path}"

    def get(self, path: str, *, max_bytes: int = sys.maxsize) -> Object:
        """Return an object; raise what `get_into` raises."""
        return self.get_into(path, lambda size: memoryview(bytearray(size)), max_bytes=max_bytes)

    def get_into(self, path: str, place: Place, *, max_bytes: int = sys.maxsize) -> Object:
        """Read an object into memory that `place` returns.

        Raises:
            TooLarge: it has more than `max_bytes`.
            Conflict: it was written to while it was read.
        """

    def get_start(self, path: str, size: int) -> bytes:
        """Return an object's first bytes, at most so many."""

    def head(self, path: str) -> Version:
        """Return an object's version."""

    def list(self, prefix: str = "", *, skip: Skip | None = None, skipped: Skipped | None = None) -> Batches:
        """Yield all objects below a prefix, in no particular order, as batches of `list_schema`.

        Args:
            prefix: the path of a folder, which need not exist; all objects if empty.
            skip: leaves out objects and folders.
            skipped: counts what is left out, and notes folders that can't be listed. Without it, those are errors.
        """


class Store(Source, Protocol):
    """A folder or a bucket, to which may be written, too."""

    def create(self) -> None:
        """Make the folder or bucket in which objects are kept, if there is none yet; nothing else makes it."""

    def open(self, path: str) -> BinaryIO:
        """Return an object as a file for reading any part of it."""

    def get_start(self, path: str, size: int) -> bytes:
        """Return an object's first bytes, at most so many."""
        with self.open(path) as file:
            return file.read(size)

    def local(self, path: str, scratch: Path) -> Path:
        """Return a local file with an object's bytes, which is not to be changed.

        Args:
            path: the object's path.
            scratch: a local folder for a copy, where the store has no local file.
        """

    def put(
        self,
        path: str,
        data: bytes | memoryview,
        *,
        expected: Version | Literal[Absent.ABSENT] | None = None,
        durable: bool = False,
    ) -> Version:
        """Write an object, so that it is there whole or not at all.

        Args:
            path: the object's path.
            data: its bytes.
            expected: the version that is to be replaced, or `ABSENT`. Of several such requests at a time, one succeeds.
            durable: whether it has to survive a power loss from now on, and not only from the next `flush`.

        Raises:
            Conflict: another version than the expected one is there.
        """

    def put_file(self, path: str, file: Path) -> None:
        """Write a finished local file as an object, whole or not at all, and durably. The file may be moved."""

    def move(self, path: str, to: str) -> None:
        """Move an object."""

    def delete(self, paths: Iterable[str]) -> None:
        """Delete objects; one that doesn't exist is no error."""

    def delete_below(self, prefix: str) -> None:
        """Delete everything below a prefix, as far as that is possible."""

    def children(self, prefix: str) -> Iterator[str]:
        """Yield the names of what is directly below a prefix, which need not exist; a folder's name ends with `/`."""

    def is_empty(self) -> bool:
        """Return whether there is nothing in the store."""
        return next(iter(self.children("")), None) is None

    def scratch(self, prefix: str) -> AbstractContextManager[Path]:
        """Provide a local folder for files in the making until the block ends.

        `put_file` need not copy them. Where the store is local, the folder lies below the prefix.
        """

    def flush(self) -> None:
        """Wait until everything that was put survives a power loss."""


Batches: TypeAlias = "Iterator[pa.RecordBatch]"


def exists(store: Store, path: str) -> bool:
    """Return whether there is an object."""
    with suppress(NotFound):
        store.head(path)
        return True
    return False


def local_if_there(store: Store, path: str, scratch: Path) -> Path | None:
    """Return a local file with an object's bytes, or None if there is no such object."""
    with suppress(NotFound):
        return store.local(path, scratch)
    return None


def unused_name(store: Store, folder: str, stem: str, suffix: str = "") -> str:
    """Return a name in a folder that is not taken yet: `stem` and suffix, or with `.2`, `.3` … between them."""
    taken = {name.removesuffix("/") for name in store.children(folder)}
    names = (f"{stem}.{number}{suffix}" for number in range(2, len(taken) + 3))
    return next(name for name in (f"{stem}{suffix}", *names) if name not in taken)
