"""A prefix of a bucket as a store."""

from __future__ import annotations

import io
import itertools
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

import obstore
from obstore.exceptions import InvalidPathError

from darkroom.tasks.storage.object_client import Clients, CutShort, connect, repeated, translated
from darkroom.tasks.storage.object_keys import attributes, check_key, to_key, to_path
from darkroom.tasks.storage.object_listing import list_keys
from darkroom.tasks.storage.ranged_file import FIRST_BYTES, RangedFile
from darkroom.tasks.storage.retries import back_off
from darkroom.tasks.storage.store import Absent, Batches, Object, Place, Skip, Skipped, Store, Version
from darkroom.tasks.storage.store_errors import Conflict, NotFound, StorageError, TooLarge

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta, PutMode

PART_BYTES = 16 << 20
"""Larger files are uploaded in parts of this size, up to 10,000 of them."""

DELETED_AT_ONCE = 1_000

PUT_TRIES = 6


class ObjectStore(Store):
    """Objects below a prefix of a bucket; every write is durable.

    Args:
        location: `scheme://bucket`, or `scheme://bucket/prefix`.
        clients: the clients of that prefix.
    """

    is_remote = True

    def __init__(self, location: str, clients: Clients) -> None:
        self._location = location
        self._clients = clients

    @property
    def location(self) -> str:
        """The URL of the bucket and the prefix."""
        return self._location

    def __eq__(self, other: object) -> bool:
        """Return whether another store has the same location."""
        return isinstance(other, ObjectStore) and self.location == other.location

    def __hash__(self) -> int:
        """Return the hash of the location."""
        return hash(self.location)

    def create(self) -> None:
        """Do nothing: there are no folders, and users create buckets."""

    def get_into(self, path: str, place: Place, *, max_bytes: int = sys.maxsize) -> Object:
        """Read an object into memory that `place` returns."""
        with self._translated(path):
            found = obstore.get(self._clients.patient, self._key(path))
            size = found.meta["size"]
            if size > max_bytes:
                raise TooLarge(path, f"the object has {size:,} bytes", self.where(path))
            view, end = place(size)[:size], 0
            for chunk in found:
                view[end : end + len(chunk)] = memoryview(chunk)
                end += len(chunk)
        if end != size:
            raise CutShort(path, f"the store sent {end:,} of {size:,} bytes", self.where(path))
        return Object(view, _version(found.meta))

    def open(self, path: str) -> BinaryIO:
        """Return an object as a file; a small one is read with one request."""
        if (found := self._get_start(path, FIRST_BYTES)) is None:
            return io.BytesIO()
        start, meta = found
        read = partial(self._get_range, path, etag=meta["e_tag"])
        ranged = RangedFile(lambda first, last: read(first, last)[0], meta["size"], start)
        return cast(BinaryIO, io.BufferedReader(ranged))

    def get_start(self, path: str, size: int) -> bytes:
        """Return an object's first bytes, with one request."""
        found = self._get_start(path, size)
        return found[0] if found else b""

    def _get_start(self, path: str, size: int) -> tuple[bytes, ObjectMeta] | None:
        """Return an object's first bytes and metadata; None if it is empty."""
        try:
            return self._get_range(path, 0, size)
        except StorageError as error:  # an empty object has no range
            if isinstance(error, NotFound) or self.head(path).size:
                raise
            return None

    @repeated
    def _get_range(self, path: str, first: int, last: int, etag: str | None = None) -> tuple[bytes, ObjectMeta]:
        options: GetOptions = {"range": (first, last)}
        if etag:
            options["if_match"] = etag
        with self._translated(path):
            found = obstore.get(self._clients.patient, self._key(path), options=options)
            return bytes(found.bytes()), found.meta

    @repeated
    def local(self, path: str, scratch: Path) -> Path:
        """Return a copy of an object in a scratch folder."""
        file = Path(tempfile.mkdtemp(dir=scratch), path.rpartition("/")[2])
        with self._translated(path):
            found = obstore.get(self._clients.patient, self._key(path))
            with file.open("wb") as copy:
                for chunk in found:
                    copy.write(chunk)
                size = copy.tell()
        if size != found.meta["size"]:
            raise CutShort(path, f"the store sent {size:,} of {found.meta['size']:,} bytes", self.where(path))
        return file

    @repeated
    def head(self, path: str) -> Version:
        """Return an object's version."""
        with self._translated(path):
            return _version(obstore.head(self._clients.patient, self._key(path)))

    def put(
        self,
        path: str,
        data: bytes | memoryview,
        *,
        expected: Version | Literal[Absent.ABSENT] | None = None,
        durable: bool = False,  # noqa: ARG002 - every object is
    ) -> Version:
        """Write an object with one request."""
        put = partial(obstore.put, path=self._key(path), file=data, attributes=attributes(path), use_multipart=False)
        with self._translated(path):
            if expected is None:
                return _written(put(self._clients.patient), data)
            mode: PutMode = "create"
            if isinstance(expected, Version):
                known = {"e_tag": expected.etag, "version": expected.generation}
                mode = cast("PutMode", {name: value for name, value in known.items() if value})
        send = partial(put, self._clients.once, mode=mode)
        return self._put_once(path, data, send, replaces=isinstance(expected, Version))

    def _put_once(self, path: str, data: bytes | memoryview, send: Any, *, replaces: bool) -> Version:
        """Send a conditional request until it is answered.

        After a repeated request, a conflict with an object of these bytes means that an earlier one succeeded.
        """
        for tried in range(1, PUT_TRIES + 1):
            try:
                with self._translated(path):
                    return _written(send(), data)
            except (Conflict, NotFound) as error:
                if isinstance(error, NotFound) and not replaces:  # the bucket
                    raise
                if tried > 1 and (found := self._get_if_there(path)) and found.data == data:
                    return found.version
                raise Conflict(path, "it was changed by another process", self.where(path)) from error
            except StorageError as error:
                if not error.transient or tried == PUT_TRIES:
                    raise
                back_off(tried)
        raise AssertionError

    def _get_if_there(self, path: str) -> Object | None:
        with suppress(NotFound):
            return self.get(path)
        return None

    @repeated
    def put_file(self, path: str, file: Path) -> None:
        """Write a local file as an object; a large one in parts, which becomes visible with the last part."""
        with self._translated(path):
            large = file.stat().st_size > PART_BYTES
            obstore.put(
                self._clients.patient,
                self._key(path),
                file,
                attributes=attributes(path),
                use_multipart=large,
                chunk_size=PART_BYTES,
            )

    def move(self, path: str, to: str) -> None:
        """Copy an object within the bucket, and delete the original."""
        with self._translated(path):
            obstore.copy(self._clients.patient, self._key(path), self._key(to))
        self.delete([path])

    def delete(self, paths: Iterable[str]) -> None:
        """Delete objects, as many with each request as the store allows."""
        keys = map(self._key, paths)
        while batch := list(itertools.islice(keys, DELETED_AT_ONCE)):
            with self._translated(batch[0]):
                try:
                    obstore.delete(self._clients.patient, batch)
                except FileNotFoundError:  # Azure and Google fail on a missing object, and may have left others
                    for key in batch:
                        with suppress(FileNotFoundError):
                            obstore.delete(self._clients.patient, key)

    def delete_below(self, prefix: str) -> None:
        """Delete everything below a prefix, as far as possible."""
        with suppress(StorageError):
            for batch in self.list(prefix):
                self.delete(batch["path"].to_pylist())

    def list(self, prefix: str = "", *, skip: Skip | None = None, skipped: Skipped | None = None) -> Batches:
        """Yield all objects below a prefix in the order of their keys."""
        with self._translated(prefix):
            yield from list_keys(self._clients.patient, prefix, skip, skipped, self._is_empty)

    def _is_empty(self, path: str) -> bool:
        """Return whether an empty object exists."""
        with suppress(NotFound):
            return self.head(path).size == 0
        return False

    def children(self, prefix: str) -> Iterator[str]:
        """Yield the names of the objects and folders directly below a prefix."""
        key = to_key(prefix.removesuffix("/"))
        found = self._level(prefix, key)
        start = f"{key}/" if key else ""
        names = [each["path"] for each in found["objects"]] + [f"{each}/" for each in found["common_prefixes"]]
        # A folder's marker has the folder's name.
        yield from (to_path(name.removeprefix(start)) for name in names if name.startswith(start) and name != start)

    @repeated
    def is_empty(self) -> bool:
        """Return whether there is no object, with one request: `children` lists all pages of a level."""
        with self._translated(""):
            try:
                return next(iter(obstore.list(self._clients.patient, chunk_size=1)), None) is None
            except InvalidPathError:  # an object whose key the client refuses
                return False

    @repeated
    def _level(self, prefix: str, key: str) -> Any:
        with self._translated(prefix):
            return obstore.list_with_delimiter(self._clients.patient, key or None)

    def scratch(self, prefix: str) -> AbstractContextManager[Path]:  # noqa: ARG002 - no folder belongs to it
        """Provide a local temporary folder."""
        return _temporary_folder()

    def flush(self) -> None:
        """Do nothing: every write is durable."""

    def _key(self, path: str) -> str:
        """Return a path's key; raise `StorageError` if no object can have it, or the client refuses it."""
        return check_key(path, self.location, self.where(path))

    def _translated(self, path: str) -> AbstractContextManager[None]:
        return translated(path, self.where(path))


def open_object_store(location: str) -> ObjectStore:
    """Return the store at a location from `bucket_location`."""
    scheme, _, rest = location.partition("://")
    bucket, _, prefix = rest.partition("/")
    with translated("", location):
        return ObjectStore(location, connect(scheme, bucket, prefix))


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="darkroom-scratch-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _written(result: Any, data: bytes | memoryview) -> Version:
    return Version(len(data), None, result["e_tag"], generation=result["version"])


def _version(meta: ObjectMeta) -> Version:
    mtime: datetime = meta["last_modified"].replace(microsecond=0)  # only listings have fractions
    return Version(meta["size"], mtime, meta["e_tag"], generation=meta["version"])
