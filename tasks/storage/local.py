"""Reading sources and writing outputs: local folders behind one small interface.

Paths are text relative to a root, `/`-separated, as `darkroom.tasks.storage.naming.path_to_text` makes them.
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

from darkroom.tasks.errors import ErrorCode, ImageError, SettingsError
from darkroom.tasks.storage.naming import text_to_path

Place: TypeAlias = Callable[[int], memoryview]
"""Returns memory of so many bytes to read a file into; what it returned before, it may return again."""

TEMPORARY_PREFIX = ".darkroom-"
"""Names of files that are being written begin so; they are renamed when whole."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_US = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_LAST_US = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_temporary_number = itertools.count()

_FOLDER_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC

_READ_CODES = {
    errno.ENOENT: ErrorCode.SOURCE_NOT_FOUND,
    errno.ENOTDIR: ErrorCode.SOURCE_NOT_FOUND,
    errno.ELOOP: ErrorCode.SOURCE_NOT_FOUND,
    errno.EISDIR: ErrorCode.SOURCE_NOT_FOUND,
    errno.EACCES: ErrorCode.SOURCE_DENIED,
    errno.EPERM: ErrorCode.SOURCE_DENIED,
    errno.ETIMEDOUT: ErrorCode.SOURCE_TIMEOUT,
}
_WRITE_CODES = {
    errno.ENOSPC: ErrorCode.WRITE_NO_SPACE,
    errno.EDQUOT: ErrorCode.WRITE_NO_SPACE,
    errno.EFBIG: ErrorCode.WRITE_NO_SPACE,
    errno.EACCES: ErrorCode.WRITE_DENIED,
    errno.EPERM: ErrorCode.WRITE_DENIED,
    errno.EROFS: ErrorCode.WRITE_DENIED,
}


@dataclass(frozen=True, slots=True)
class FileVersion:
    """What tells one version of a file from another without reading it; a local file has no etag."""

    size: int | None
    mtime: datetime | None
    etag: str | None = None


def mtime_us(status: os.stat_result) -> int:
    """Return a file's modification time in whole µs since the epoch, within the years that dates can have."""
    return min(max(status.st_mtime_ns // 1000, _FIRST_US), _LAST_US)


def version_of(status: os.stat_result) -> FileVersion:
    """Return the version of a local file: its size in bytes and modification time in whole µs, UTC."""
    return FileVersion(status.st_size, _EPOCH + timedelta(microseconds=mtime_us(status)))


@dataclass(frozen=True, slots=True)
class LocalFolder:
    """Files below a local folder."""

    root: bytes
    confined: bool = False
    """Whether what a symbolic link leads to must lie below the root, too, to be read."""

    def locate(self, path: str) -> bytes:
        """Return the local path of a file below the root."""
        return os.path.join(self.root, text_to_path(path))

    def read(self, path: str, max_bytes: int = sys.maxsize) -> bytes:
        """Return a file's bytes; raises what `read_into` does."""
        data, _ = self.read_into(path, lambda size: memoryview(bytearray(size)), max_bytes)
        return bytes(data)

    def read_into(self, path: str, place: Place, max_bytes: int = sys.maxsize) -> tuple[memoryview, FileVersion]:
        """Read a file into memory that `place` returns, and return its bytes there and the version that was read.

        Raises:
            ImageError: `source.*`; `source.changed` if it was written to in the meantime, `source.denied` if a link
                leads to where it must not, `decode.memory` if it is larger than `max_bytes`.
        """
        try:
            # O_NONBLOCK: a pipe that has taken a file's place would be waited for without end.
            descriptor = os.open(self.locate(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                if self.confined:
                    self._refuse_outside(descriptor, path)
                status = os.fstat(descriptor)
                if status.st_size > max_bytes:
                    message = f"the file has {status.st_size:,} bytes, more than max_source_bytes = {max_bytes:,}"
                    raise ImageError(ErrorCode.DECODE_MEMORY, message)
                before = version_of(status)
                view = place(status.st_size + 1)  # one more, to see whether the file has grown
                size = _read_to_end(descriptor, view)
                after = version_of(os.fstat(descriptor))
            finally:
                os.close(descriptor)
        except OSError as error:
            code = _READ_CODES.get(error.errno or 0, ErrorCode.SOURCE_FAILED)
            raise ImageError(code, f"reading failed: {os.strerror(error.errno or 0)}") from error
        if before != after or size != after.size:
            raise ImageError(ErrorCode.SOURCE_CHANGED, "the file was written to while it was read")
        return view[:size], after

    def _refuse_outside(self, descriptor: int, path: str) -> None:
        """Refuse a file to which a symbolic link leads that was put in place since the files were listed."""
        inside = _real(self.root).rstrip(b"/") + b"/"
        if not _opened_path(descriptor).startswith(inside) and not os.path.realpath(self.locate(path)).startswith(
            inside
        ):
            raise ImageError(ErrorCode.SOURCE_DENIED, "a symbolic link leads outside the source")

    def write(self, path: str, data: bytes | memoryview) -> None:
        """Write a file so that it is there either whole or not at all, making the folders it needs.

        Raises:
            ImageError: `write.*`.
        """
        target = self.locate(path)
        try:
            with self._folder_of(target, make=True) as folder:
                replace_file(folder, os.path.basename(target), data)
        except OSError as error:
            code = _WRITE_CODES.get(error.errno or 0, ErrorCode.WRITE_FAILED)
            raise ImageError(code, f"writing the output failed: {os.strerror(error.errno or 0)}") from error

    @contextmanager
    def _folder_of(self, target: bytes, *, make: bool = False) -> Iterator[int]:
        """Provide a descriptor of the folder that a file lies in, which no symbolic link below the root leads to.

        Raises:
            OSError: it isn't there, or is no such folder; with `make`, it can't be made.
        """
        if make and not os.path.isdir(self.root):
            os.makedirs(self.root, exist_ok=True)
        names = os.path.dirname(target).removeprefix(self.root).split(b"/")
        if not target.startswith(self.root) or b".." in names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        descriptor = os.open(self.root, _FOLDER_FLAGS)
        try:
            for name in names:
                if name:
                    above, descriptor = descriptor, _open_folder(name, descriptor, make=make)
                    os.close(above)
            yield descriptor
        finally:
            os.close(descriptor)

    def delete(self, path: str) -> None:
        """Delete a file and the folders that it leaves empty; a file that isn't there is no error."""
        target = self.locate(path)
        try:
            with self._folder_of(target) as folder:
                os.unlink(os.path.basename(target), dir_fd=folder)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return
        _remove_empty_folders(target, self.root)

    def move(self, path: str, folder: LocalFolder) -> None:
        """Move a file to the same path below another folder, and remove the folders that it leaves empty.

        Raises:
            OSError: it isn't there, or can't be moved.
        """
        target = self.locate(path)
        moved = folder.locate(path)
        with self._folder_of(target):
            os.makedirs(os.path.dirname(moved), exist_ok=True)
            shutil.move(os.fsdecode(target), os.fsdecode(moved))
        _remove_empty_folders(target, self.root)


def _remove_empty_folders(target: bytes, root: bytes) -> None:
    """Remove the folders above a file that is gone, as far as they are empty."""
    for folder in _parents(target, root):
        try:
            os.rmdir(folder)
        except OSError:
            return


def _parents(target: bytes, root: bytes) -> Iterator[bytes]:
    folder = os.path.dirname(target)
    while len(folder) > len(root):
        yield folder
        folder = os.path.dirname(folder)


def _read_to_end(descriptor: int, view: memoryview) -> int:
    """Read a file into memory until it ends or the memory is full; return how many bytes that are."""
    size = 0
    while size < len(view) and (read := os.readv(descriptor, [view[size:]])):
        size += read
    return size


@lru_cache(maxsize=16)
def _real(root: bytes) -> bytes:
    return os.path.realpath(root)


def _opened_path(descriptor: int) -> bytes:
    """Return the path of an open file; nothing where the system doesn't tell."""
    with suppress(OSError):
        return os.readlink(b"/proc/self/fd/%d" % descriptor)
    return b""


def _open_folder(name: bytes, above: int, *, make: bool) -> int:
    """Return a descriptor of a folder in another one that is open.

    Making it, a file in its place is the stale output of a source that was replaced, and removed; a symbolic link
    is refused.
    """
    try:
        return os.open(name, _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=above)
    except FileNotFoundError:
        if not make:
            raise
    except NotADirectoryError:
        if not make:
            raise
        if stat.S_ISLNK(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode):
            message = "a symbolic link leads the output's folder elsewhere"
            raise ImageError(ErrorCode.WRITE_DENIED, message) from None
        os.unlink(name, dir_fd=above)
    with suppress(FileExistsError):  # another worker was quicker
        os.mkdir(name, dir_fd=above)
    return os.open(name, _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=above)


def replace_file(folder: int, name: bytes, data: bytes | memoryview) -> None:
    """Write data beside the file of that name in an open folder, and rename it.

    A folder in its place holds the stale outputs of sources that a file has since replaced, and is removed.
    """
    temporary = f"{TEMPORARY_PREFIX}{os.getpid()}-{next(_temporary_number)}".encode()
    try:
        _write_new(folder, temporary, data)
        try:
            os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except IsADirectoryError:
            shutil.rmtree(name, dir_fd=folder)
            os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):  # it may be what is wrong
            os.unlink(temporary, dir_fd=folder)
        raise


def _write_new(folder: int, name: bytes, data: bytes | memoryview) -> None:
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666, dir_fd=folder)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def local_folder(location: str, setting: str) -> Path:
    """Return the absolute path that a setting names.

    Raises:
        SettingsError: it is empty, not UTF-8, or a URL; object stores are not supported yet.
    """
    if not location:
        raise SettingsError(f"{setting}: it is empty. Give a folder.")
    if not _is_utf8(location):
        raise SettingsError(f"{setting}: {location!r} is not UTF-8. Rename that folder, or link to it from another.")
    if "://" in location:
        raise SettingsError(f"{setting}: {location!r} is a URL; only local folders are supported so far.")
    try:
        return Path(os.path.abspath(Path(location).expanduser()))
    except RuntimeError as error:
        raise SettingsError(f"{setting}: {location!r} names a user that this machine does not have.") from error
