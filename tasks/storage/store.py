"""The interface to a source or destination: objects with `/`-separated paths.

Paths are text, relative to the store, as `darkroom.tasks.storage.naming.path_to_text` makes them. Every method raises a
`StorageError` if it fails.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Literal, Protocol, TypeAlias

from darkroom.tasks.storage.store_errors import NotFound, reading_source

if TYPE_CHECKING:
    import pyarrow as pa

Place: TypeAlias = Callable[[int], memoryview]
"""Returns memory of at least that many bytes to read an object into; the next call may return the same memory."""

BATCH_ROWS = 65_536
"""Rows of a batch of a listing."""


@cache
def list_schema() -> pa.Schema:
    """Return the schema of listings.

    Size and times are null for files whose status can't be read; size is -1 for anything but a regular file.
    """
    import pyarrow as pa  # takes 0.1 s, and few commands need it

    return pa.schema(
        [
            pa.field("path", pa.string(), nullable=False),
            pa.field("size", pa.int64()),
            pa.field("mtime", pa.timestamp("us", tz="UTC")),
            pa.field("ctime", pa.timestamp("us", tz="UTC")),
            pa.field("etag", pa.string()),
        ]
    )


def listing_batch(paths: Sequence[str], versions: Sequence[Version]) -> pa.RecordBatch:
    """Return objects as a batch of `list_schema`."""
    import pyarrow as pa

    values = {"path": paths} | {
        name: [getattr(version, name) for version in versions] for name in list_schema().names if name != "path"
    }
    return pa.record_batch([pa.array(values[field.name], field.type) for field in list_schema()], schema=list_schema())


class Absent(Enum):
    """The type of `ABSENT`."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT
"""Value of `expected` for a `put` that may only create an object."""


@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """Identifies a version of an object without reading it. Local files have a ctime and no etag, others the reverse.

    Versions with an etag are equal if the etag and the size are, others if size and mtime are.
    """

    size: int | None
    mtime: datetime | None
    etag: str | None = None
    ctime: datetime | None = None
    """When the file's status last changed. Unlike the mtime, programs can't set it; but as renames and links change it,
    equal versions may differ in it."""

    generation: str | None = None
    """Google Cloud Storage uses this instead of the etag in conditional requests."""

    def __eq__(self, other: object) -> bool:
        """Return whether two versions have the same identity."""
        return isinstance(other, Version) and self._identity() == other._identity()

    def __hash__(self) -> int:
        """Return the hash of the identity."""
        return hash(self._identity())

    def _identity(self) -> tuple[int | None, datetime | None, str | None]:
        return self.size, None if self.etag else self.mtime, self.etag


@dataclass(frozen=True, slots=True)
class Object:
    """An object's bytes and version."""

    data: memoryview
    version: Version


@dataclass(slots=True)
class Skipped:
    """The entries that a listing left out."""

    counts: Counter[str] = field(default_factory=Counter)
    """Number of entries by reason: the caller's reasons, `special` (a socket, a device), `linked_folder`, `outside` (a
    symbolic link that leads out of the store) and `unreadable_folder`."""

    unreadable: list[str] = field(default_factory=list)
    """Folders that could not be listed: their files are unknown, not gone."""


Skip: TypeAlias = Callable[[str], str | None]
"""Returns why a path is left out of a listing, or None if it isn't; the path of a folder ends with `/`."""


class Source(Protocol):
    """Where images are read."""

    is_remote: bool = False
    """Whether requests cross a network, so that sending many at a time is faster."""

    def __hash__(self) -> int:
        """Return the hash of the location: stores of the same location are equal."""
        return hash(self.location)

    @property
    def location(self) -> str:
        """Where the store is, as users write it."""

    def where(self, path: str) -> str:
        """Return where an object is, as users write it."""
        return f"{self.location}/{path}"

    def get(self, path: str, *, max_bytes: int = sys.maxsize) -> Object:
        """Return an object, like `get_into`, in new memory."""
        return self.get_into(path, lambda size: memoryview(bytearray(size)), max_bytes=max_bytes)

    def get_into(self, path: str, place: Place, *, max_bytes: int = sys.maxsize) -> Object:
        """Read an object into memory that `place` returns.

        Raises:
            TooLarge: it has more than `max_bytes`.
            Conflict: it was written to while it was read.
        """

    def get_start(self, path: str, size: int) -> bytes:
        """Return an object's first bytes, at most `size`."""

    def head(self, path: str) -> Version:
        """Return an object's version."""

    def list(self, prefix: str = "", *, skip: Skip | None = None, skipped: Skipped | None = None) -> Batches:
        """Yield all objects below a prefix, in no particular order, as batches of `list_schema`.

        Args:
            prefix: the path of a folder, which need not exist; all objects if empty.
            skip: returns why to leave out an object or folder.
            skipped: collects what is left out. Without it, folders that can't be listed are errors.
        """


class Store(Source, Protocol):
    """A folder or bucket that can be written to."""

    def create(self) -> None:
        """Create the store's folder if it doesn't exist; no other method does."""

    def open(self, path: str) -> BinaryIO:
        """Return an object as a seekable file, open for reading."""

    def get_start(self, path: str, size: int) -> bytes:
        """Return an object's first bytes, at most `size`."""
        with self.open(path) as file:
            return file.read(size)

    def local(self, path: str, scratch: Path) -> Path:
        """Return a local, read-only file with an object's bytes: a copy in `scratch` if the store is not local."""

    def put(
        self,
        path: str,
        data: bytes | memoryview,
        *,
        expected: Version | Literal[Absent.ABSENT] | None = None,
        durable: bool = False,
    ) -> Version:
        """Write an object atomically.

        Args:
            path: the object's path.
            data: its bytes.
            expected: the version to replace, or `ABSENT`. Of several concurrent requests, one succeeds.
            durable: make the object survive a power loss from now on, not only from the next `flush`.

        Raises:
            Conflict: the object is not the expected version.
        """

    def put_file(self, path: str, file: Path) -> None:
        """Write a local file, which may be moved, as an object, atomically and durably."""

    def move(self, path: str, to: str) -> None:
        """Move an object."""

    def delete(self, paths: Iterable[str]) -> None:
        """Delete objects; missing ones are no error."""

    def delete_below(self, prefix: str) -> None:
        """Delete everything below a prefix, as far as possible."""

    def children(self, prefix: str) -> Iterator[str]:
        """Yield the names directly below a prefix, which need not exist; a folder's name ends with `/`."""

    def is_empty(self) -> bool:
        """Return whether there is nothing in the store."""
        return next(iter(self.children("")), None) is None

    def scratch(self, prefix: str) -> AbstractContextManager[Path]:
        """Provide a local folder, below the prefix if the store is local, for temporary files until the block ends."""

    def flush(self) -> None:
        """Make every write so far durable."""


Batches: TypeAlias = "Iterator[pa.RecordBatch]"


def listed(source: Source, prefix: str = "", *, skip: Skip, skipped: Skipped) -> Batches:
    """Yield what `Source.list` does; if that fails, raise the error of a run."""
    with reading_source():
        yield from source.list(prefix, skip=skip, skipped=skipped)


def exists(store: Store, path: str) -> bool:
    """Return whether an object exists."""
    with suppress(NotFound):
        store.head(path)
        return True
    return False


def local_if_there(store: Store, path: str, scratch: Path) -> Path | None:
    """Return a local file like `Store.local`, or None if there is no such object."""
    with suppress(NotFound):
        return store.local(path, scratch)
    return None


def unused_name(store: Store, folder: str, stem: str, suffix: str = "") -> str:
    """Return an unused name in a folder: stem and suffix, maybe with `.2`, `.3` … between them."""
    taken = {name.removesuffix("/") for name in store.children(folder)}
    names = (f"{stem}.{number}{suffix}" for number in range(2, len(taken) + 3))
    return next(name for name in (f"{stem}{suffix}", *names) if name not in taken)
