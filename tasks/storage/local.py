"""A local folder as a store."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Literal

from darkroom.tasks.storage.local_files import (
    LinkedFolderError,
    locked,
    move_file,
    opened_folder,
    remove_empty_folders,
    replace_file,
    sync_filesystem,
    temporary_name,
    version_of,
)
from darkroom.tasks.storage.local_listing import Links, Walk
from darkroom.tasks.storage.naming import path_to_text, text_to_path
from darkroom.tasks.storage.store import Absent, Batches, Object, Place, Skip, Skipped, Store, Version
from darkroom.tasks.storage.store_errors import (
    KINDS,
    Conflict,
    Denied,
    Failed,
    NotFound,
    Obstructed,
    PathTooLong,
    StorageError,
    TooLarge,
)

MAX_PATH_BYTES = os.pathconf("/", "PC_PATH_MAX") - 1
"""Limit of a whole path. Longer ones could be made folder by folder, but not opened or listed by their path."""


@dataclass(frozen=True, slots=True)
class LocalFolder(Store):
    """Files below a local folder."""

    root: bytes
    links: Links = Links.KEPT
    """How listings treat symbolic links. With `Links.INSIDE`, links that lead outside are not read either."""

    excluded: bytes | None = None
    """A folder into which no link is followed."""

    outputs: str = ""
    """The prefix of files that can be made again. There, a file in the place of a folder, or the reverse, is left over
    from a former source, and is removed. `flush` flushes this prefix's file system."""

    @property
    def location(self) -> str:
        """The folder's path."""
        return os.fsdecode(self.root)

    def locate(self, path: str) -> bytes:
        """Return the local path of a file."""
        return os.path.join(self.root, text_to_path(path))

    def create(self) -> None:
        """Create the folder and its parents."""
        with self._translated("", writes=True):
            os.makedirs(self.root, exist_ok=True)

    def get_into(self, path: str, place: Place, *, max_bytes: int = sys.maxsize) -> Object:
        """Read a file into memory that `place` returns."""
        with self._translated(path), self.open(path) as file:
            status = os.fstat(file.fileno())
            if status.st_size > max_bytes:
                raise TooLarge(path, f"the file has {status.st_size:,} bytes", self.where(path))
            view = place(status.st_size + 1)  # one more, to see whether the file has grown
            size = _read_to_end(file.fileno(), view)
            after = version_of(os.fstat(file.fileno()))
        before = version_of(status)
        if before != after or size != after.size:
            raise Conflict(path, "the file was written to while it was read", self.where(path))
        return Object(view[:size], before)  # with the former ctime, so that a later change shows

    def open(self, path: str) -> BinaryIO:
        """Return a file, open for reading."""
        with self._translated(path):
            # O_NONBLOCK: opening a pipe that has taken a file's place would never return.
            descriptor = os.open(self.locate(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                if self.links is Links.INSIDE:
                    self._refuse_outside(descriptor, path)
                return os.fdopen(descriptor, "rb")
            except (OSError, StorageError):  # it may be a folder
                os.close(descriptor)
                raise

    def get_start(self, path: str, size: int) -> bytes:
        """Return a file's first bytes, without waiting if a pipe has taken its place."""
        with self._translated(path), self.open(path) as file:
            return file.read(size) or b""

    def _refuse_outside(self, descriptor: int, path: str) -> None:
        """Raise `Denied` for a file outside the root: since the listing, a link may have come to lead there."""
        inside = _real(self.root).rstrip(b"/") + b"/"
        opened = _opened_path(descriptor)
        if not opened.startswith(inside) and not os.path.realpath(self.locate(path)).startswith(inside):
            raise Denied(path, "a symbolic link leads outside the source", self.where(path))

    def local(self, path: str, scratch: Path) -> Path:  # noqa: ARG002 - no copy is needed
        """Return a file's own path."""
        self.head(path)
        return Path(os.fsdecode(self.locate(path)))

    def head(self, path: str) -> Version:
        """Return a file's version."""
        with self._translated(path):
            status = os.stat(self.locate(path))
            if stat.S_ISDIR(status.st_mode):
                raise IsADirectoryError(errno.EISDIR, "")
        return version_of(status)

    def put(
        self,
        path: str,
        data: bytes | memoryview,
        *,
        expected: Version | Literal[Absent.ABSENT] | None = None,
        durable: bool = False,
    ) -> Version:
        """Write a file, and create its folders."""
        if (length := len(self.locate(path))) > MAX_PATH_BYTES:
            reason = f"its path would have {length:,} of at most {MAX_PATH_BYTES:,} bytes"
            raise PathTooLong(path, f"{reason}; use a destination with a shorter path", self.location)
        with self._folder_of(path, make=True) as (folder, name):
            if expected is None:
                try:
                    return replace_file(folder, name, data, durable=durable)
                except IsADirectoryError:
                    if not self._may_clear(path):
                        raise
                    shutil.rmtree(name, dir_fd=folder)
                    return replace_file(folder, name, data, durable=durable)
            with locked(folder, name) as status:
                if expected != (version_of(status) if status else Absent.ABSENT):
                    raise Conflict(path, "it was changed by another process", self.where(path))
                return replace_file(folder, name, data, durable=durable, after=status)

    def put_file(self, path: str, file: Path) -> None:
        """Move a local file to a path; copy it if it is on another file system."""
        with self._folder_of(path, make=True) as (folder, name):
            move_file(os.fsencode(file), folder, name)

    def move(self, path: str, to: str) -> None:
        """Move a file or link, and remove folders that become empty."""
        target, moved = self.locate(path), self.locate(to)
        with self._folder_of(path):
            os.makedirs(os.path.dirname(moved), exist_ok=True)
            shutil.move(os.fsdecode(target), os.fsdecode(moved))
        remove_empty_folders(target, self.root)

    def delete(self, paths: Iterable[str]) -> None:
        """Delete files, and folders that become empty."""
        for path in paths:
            with suppress(NotFound):
                with self._folder_of(path) as (folder, name):
                    os.unlink(name, dir_fd=folder)
                remove_empty_folders(self.locate(path), self.root)

    def delete_below(self, prefix: str) -> None:
        """Delete a folder, as far as possible."""
        shutil.rmtree(self.locate(prefix), ignore_errors=True)

    def list(self, prefix: str = "", *, skip: Skip | None = None, skipped: Skipped | None = None) -> Batches:
        """Yield all files below a prefix."""
        with self._translated(prefix):
            yield from Walk(self.root, self.links, self.excluded, skip, skipped).batches(text_to_path(prefix))

    def children(self, prefix: str) -> Iterator[str]:
        """Yield the names of the files and folders in a folder."""
        with self._translated(prefix), suppress(FileNotFoundError), os.scandir(self.locate(prefix)) as entries:
            for entry in entries:
                yield path_to_text(entry.name) + ("/" if entry.is_dir() else "")

    @contextmanager
    def scratch(self, prefix: str) -> Iterator[Path]:
        """Provide a folder below the prefix."""
        path = f"{prefix}/{temporary_name().decode()}"
        with self._folder_of(path, make=True) as (folder, name):
            os.mkdir(name, dir_fd=folder)
        try:
            yield Path(os.fsdecode(self.locate(path)))
        finally:
            self.delete_below(path)

    def flush(self) -> None:
        """Flush the outputs to the disk."""
        with self._translated(self.outputs, writes=True), suppress(FileNotFoundError):
            sync_filesystem(self.locate(self.outputs))

    def _may_clear(self, path: str) -> bool:
        return bool(self.outputs) and path.startswith(self.outputs + "/")

    @contextmanager
    def _folder_of(self, path: str, *, make: bool = False) -> Iterator[tuple[int, bytes]]:
        """Provide a descriptor of a file's folder, and the file's name."""
        *folders, name = text_to_path(path).split(b"/")
        with self._translated(path, writes=True):
            if not {b"", b".", b".."}.isdisjoint([*folders, name]):
                raise FileNotFoundError(errno.ENOENT, "")
            with opened_folder(self.root, folders, make=make, clear=self._may_clear(path)) as folder:
                yield folder, name

    @contextmanager
    def _translated(self, path: str, *, writes: bool = False) -> Iterator[None]:
        """Translate `OSError`s into `StorageError`s."""
        try:
            yield
        except OSError as error:
            raise self._storage_error(error, path, writes=writes) from error

    def _storage_error(self, error: OSError, path: str, *, writes: bool) -> StorageError:
        if isinstance(error, LinkedFolderError):
            return Denied(path, "a symbolic link leads the output's folder elsewhere", self.where(path))
        kind, reason = KINDS.get(error.errno or 0, Failed), os.strerror(error.errno or 0)
        if kind is PathTooLong:
            reason = "its name or path is too long for the file system"
        if error.errno == errno.EROFS:
            return Denied(path, reason, self.location)
        if kind not in {Denied, Obstructed}:
            return kind(path, reason, self.where(path))
        met = _existing(error, self.locate(path))
        if kind is Obstructed:
            wrong = "a folder where Darkroom has a file" if os.path.isdir(met) else "a file where Darkroom has a folder"
            return Obstructed(path, reason, os.fsdecode(met), wrong)
        if writes and not os.path.isdir(met):
            met = os.path.dirname(met)
        return Denied(path, reason, os.fsdecode(met))


def _existing(error: OSError, path: bytes) -> bytes:
    """Return the path that an error names, else `path`; if it does not exist, its nearest existing parent."""
    if isinstance(error.filename, str | bytes) and os.path.isabs(error.filename):
        path = os.fsencode(error.filename)
    while not os.path.lexists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path


def _read_to_end(descriptor: int, view: memoryview) -> int:
    """Read a file into memory until either ends; return the number of bytes."""
    size = 0
    while size < len(view) and (read := os.readv(descriptor, [view[size:]])):
        size += read
    return size


@lru_cache(maxsize=16)
def _real(root: bytes) -> bytes:
    return os.path.realpath(root)


def _opened_path(descriptor: int) -> bytes:
    """Return the path of an open file; empty where the system can't look it up."""
    with suppress(OSError):
        return os.readlink(b"/proc/self/fd/%d" % descriptor)
    return b""
