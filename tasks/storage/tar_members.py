"""The files in tar archives as images of a source, as in the shards of WebDataset."""

from __future__ import annotations

import os
import posixpath
import sys
import tarfile
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import BinaryIO, TypeAlias

from darkroom.tasks.storage.naming import folders_above, path_to_text
from darkroom.tasks.storage.store import (
    BATCH_ROWS,
    Batches,
    Object,
    Place,
    Skip,
    Skipped,
    Source,
    Store,
    Version,
    listing_batch,
)
from darkroom.tasks.storage.store_errors import Failed, NotFound, Obstructed, StorageError, TooLarge

SUFFIX = ".tar"

SIDECARS = frozenset("cls cls2 class count id index inx jsn json text transcript txt".split())  # noqa: SIM905
"""What follows the first dot in names of sidecars, lower case: the files of a sample that WebDataset reads as text."""

MAX_SIDECAR_BYTES = 64 << 10
"""Larger files are no sidecars: each is a value of the manifest."""

OnSidecar: TypeAlias = Callable[[str, bytes], None]
"""Gets the path and the bytes of a sidecar."""

_DAMAGE = (tarfile.TarError, OSError, ValueError, OverflowError, MemoryError)
"""What tarfile raises for damaged archives: headers may state any size."""

OPEN_ARCHIVES = 2
"""Archives that are kept open: a shard's images are in the order of their paths, archive after archive."""


@dataclass(slots=True, weakref_slot=True, eq=False)
class _Archive:
    """An open archive; its file is closed when no thread has it any more."""

    file: BinaryIO
    version: Version
    members: dict[str, tuple[int, int]]
    """Offset and size of its files, by path; hard links to them are files, too."""

    special: int
    """Number of its symbolic links, sparse files and devices, and of hard links to nothing."""

    is_whole: bool
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        weakref.finalize(self, self.file.close)

    def read_into(self, offset: int, view: memoryview) -> int:
        """Read bytes from an offset on, and return how many there are."""
        with self.lock:
            self.file.seek(offset)
            end = 0
            while end < len(view) and (read := self.file.readinto(view[end:])):  # type: ignore[attr-defined]
                end += read
            return end


class TarMembers(Source):
    """A folder or bucket, with the files in its tar archives in place of the archives: `a/b.tar/c.jpg`.

    Each of them has the version of its archive, and its own size.
    """

    def __init__(self, store: Store) -> None:
        self.is_remote = store.is_remote
        self.on_sidecar: OnSidecar | None = None
        """Gets each sidecar that a listing comes to; without it, they are files that are no images."""

        self._store = store
        self._archives: dict[str, _Archive] = {}
        self._lock = threading.Lock()

    @property
    def location(self) -> str:
        """Where the folder or bucket is."""
        return self._store.location

    def get_into(self, path: str, place: Place, *, max_bytes: int = sys.maxsize) -> Object:
        """Read a file of an archive, or any other, into memory that `place` returns."""
        archive, member = self._find(path)
        if archive is None:
            return self._store.get_into(path, place, max_bytes=max_bytes)
        offset, size = member
        if size > max_bytes:
            raise TooLarge(path, f"the file has {size:,} bytes", self.where(path))
        view = place(size)[:size]
        if (end := archive.read_into(offset, view)) != size:
            raise Failed(path, f"the archive ends after {end:,} of its {size:,} bytes", self.where(path))
        return Object(view, _version(archive.version, size))

    def get_start(self, path: str, size: int) -> bytes:
        """Return the first bytes of a file."""
        archive, (offset, whole) = self._find(path)
        if archive is None:
            return self._store.get_start(path, size)
        start = bytearray(min(size, whole))
        return bytes(start[: archive.read_into(offset, memoryview(start))])

    def head(self, path: str) -> Version:
        """Return the version of a file."""
        archive, (_, size) = self._find(path)
        return _version(archive.version, size) if archive else self._store.head(path)

    def list(self, prefix: str = "", *, skip: Skip | None = None, skipped: Skipped | None = None) -> Batches:
        """Yield all files below a prefix, those in archives among them."""
        skipped = skipped or Skipped()
        archives: list[str] = []

        def leave_out(path: str) -> str | None:
            if not path.endswith(SUFFIX):
                return skip(path) if skip else None
            if reason := skip and skip(f"{path}/"):
                return reason
            archives.append(path)
            return "archive"

        yield from self._store.list(prefix, skip=leave_out, skipped=skipped)
        del skipped.counts["archive"]
        for path in sorted(archives):
            yield from self._list_archive(path, skip, skipped)

    def _list_archive(self, path: str, skip: Skip | None, skipped: Skipped) -> Batches:
        """Yield the files of an archive; of a damaged one, those before the damage."""
        try:
            archive = self._open(path, self.on_sidecar)
        except StorageError:
            archive = None
        if archive is None or not archive.is_whole:
            skipped.counts["damaged_archive"] += 1
            skipped.unreadable.append(path)
        if archive is None:
            return
        if archive.special:
            skipped.counts["special"] += archive.special
        found = []
        for name, (_, size) in archive.members.items():
            if self.on_sidecar and _is_sidecar(name, size):
                continue
            if reason := skip and _why_skipped(skip, path, name):
                skipped.counts[reason] += 1
            else:
                found.append((f"{path}/{name}", _version(archive.version, size)))
        for start in range(0, len(found), BATCH_ROWS):
            yield listing_batch(*zip(*found[start : start + BATCH_ROWS], strict=True))

    def _find(self, path: str) -> tuple[_Archive | None, tuple[int, int]]:
        """Return the archive that a path leads into, if any, and the file's offset and size there."""
        for above in folders_above(path):
            if above.endswith(f"{SUFFIX}/"):
                try:
                    archive = self._open(above.removesuffix("/"))
                except Obstructed:  # a folder of that name
                    continue
                member = path.removeprefix(above)
                if member not in archive.members:
                    raise NotFound(path, "the archive no longer has it", self.where(path))
                return archive, archive.members[member]
        return None, (0, 0)

    def _open(self, path: str, on_sidecar: OnSidecar | None = None) -> _Archive:
        """Return an archive; with `on_sidecar`, read its sidecars, too."""
        with self._lock:
            if path not in self._archives or on_sidecar:
                while len(self._archives) >= OPEN_ARCHIVES:
                    del self._archives[next(iter(self._archives))]
                version, file = self._store.head(path), self._store.open(path)
                try:
                    self._archives[path] = _index(path, file, version, on_sidecar)
                except _DAMAGE as error:
                    file.close()
                    raise Failed(path, f"it is no tar archive, or damaged: {error}", self.where(path)) from error
            return self._archives[path]


def _index(path: str, file: BinaryIO, version: Version, on_sidecar: OnSidecar | None) -> _Archive:
    """Return an archive with those of its files whose paths stay in it.

    Raises:
        tarfile.TarError, OSError, ValueError, OverflowError, MemoryError: the file is no archive, or can't be read.
    """
    members: dict[str, tuple[int, int]] = {}
    special, is_whole = 0, False
    with tarfile.open(fileobj=file, mode="r:") as archive, suppress(*_DAMAGE):  # after the last whole file
        for member in archive:
            archive.members = []  # type: ignore[attr-defined] # tarfile would keep all of them
            if not (member.issparse() or 0 <= member.size <= (version.size or 0)):
                raise tarfile.ReadError("a header states an impossible size")
            name, target = _normal(member.name), _normal(member.linkname)
            if member.isdir() or name.startswith(("/", "../")):
                continue
            if member.islnk() and target in members:
                members[name] = members[target]
            elif member.isreg() and not member.issparse():
                members[name] = member.offset_data, member.size
            else:
                special += 1
                continue
            offset, size = members[name]
            if on_sidecar and _is_sidecar(name, size):
                file.seek(offset)
                if len(data := file.read(size)) == size:
                    on_sidecar(f"{path}/{name}", data)
        file.seek(archive.offset)
        is_whole = file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)  # by which archives end
    return _Archive(file, version, members, special, is_whole)


def _normal(name: str) -> str:
    """Return the name of a member as a path of a source: tarfile decodes as `os.fsdecode` does."""
    return path_to_text(os.fsencode(posixpath.normpath(name)))


def _is_sidecar(name: str, size: int) -> bool:
    key, _, rest = name.rpartition("/")[2].partition(".")
    return bool(key) and rest.lower() in SIDECARS and size <= MAX_SIDECAR_BYTES


def _why_skipped(skip: Skip, archive: str, name: str) -> str | None:
    """Return why a listing leaves out a file of an archive, or one of the folders above it there."""
    return next(filter(None, (skip(f"{archive}/{path}") for path in [*folders_above(name), name])), None)


def _version(archive: Version, size: int) -> Version:
    return replace(archive, size=size)
