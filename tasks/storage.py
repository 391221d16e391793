"""Reading sources and writing outputs: local folders behind one small interface.

Paths are text relative to a root, `/`-separated, as `tasks.naming.path_to_text` makes them.
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

from tasks.errors import ErrorCode, ImageError, SettingsError
from tasks.naming import text_to_path

TEMPORARY_PREFIX = ".darkroom-"
"""Names of files that are being written begin so; they are renamed when whole."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_US = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_LAST_US = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_temporary_number = itertools.count()

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

    def locate(self, path: str) -> bytes:
        """Return the local path of a file below the root."""
        return os.path.join(self.root, text_to_path(path))

    def read(self, path: str, max_bytes: int = sys.maxsize) -> tuple[bytes, FileVersion]:
        """Return a file's bytes and the version that was read.

        Raises:
            ImageError: `source.*`; `source.changed` if it was written to in the meantime, `decode.memory` if it
                is larger than `max_bytes`.
        """
        try:
            # O_NONBLOCK: a pipe that has taken a file's place would be waited for without end.
            descriptor = os.open(self.locate(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                status = os.fstat(descriptor)
                if status.st_size > max_bytes:
                    message = f"the file has {status.st_size:,} bytes, more than max_source_bytes = {max_bytes:,}"
                    raise ImageError(ErrorCode.DECODE_MEMORY, message)
                before = version_of(status)
                data = _read_all(descriptor, status.st_size)
                after = version_of(os.fstat(descriptor))
            finally:
                os.close(descriptor)
        except OSError as error:
            code = _READ_CODES.get(error.errno or 0, ErrorCode.SOURCE_FAILED)
            raise ImageError(code, f"reading failed: {os.strerror(error.errno or 0)}") from error
        if before != after or len(data) != after.size:
            raise ImageError(ErrorCode.SOURCE_CHANGED, "the file was written to while it was read")
        return data, after

    def write(self, path: str, data: bytes) -> None:
        """Write a file so that it is there either whole or not at all, making the folders it needs.

        Raises:
            ImageError: `write.*`.
        """
        target = self.locate(path)
        try:
            try:
                self._write(target, data)
            except (FileNotFoundError, NotADirectoryError):
                # A worker outlives runs, and the folder that it knows may have been removed between them.
                _is_plain_folder.cache_clear()
                self._write(target, data)
        except OSError as error:
            code = _WRITE_CODES.get(error.errno or 0, ErrorCode.WRITE_FAILED)
            raise ImageError(code, f"writing the output failed: {os.strerror(error.errno or 0)}") from error

    def _write(self, target: bytes, data: bytes) -> None:
        if not _is_plain_folder(os.path.dirname(target), self.root):
            _make_folders(target, self.root)
            if not _is_plain_folder(os.path.dirname(target), self.root):
                raise ImageError(ErrorCode.WRITE_DENIED, "a symbolic link leads the output's folder elsewhere")
        replace_file(target, data)

    def delete(self, path: str) -> None:
        """Delete a file and the folders that it leaves empty; a file that isn't there is no error."""
        target = self.locate(path)
        if not _is_plain_folder(os.path.dirname(target), self.root):
            return
        try:
            os.unlink(target)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return
        _remove_empty_folders(target, self.root)

    def move(self, path: str, folder: LocalFolder) -> None:
        """Move a file to the same path below another folder, and remove the folders that it leaves empty.

        Raises:
            OSError: it isn't there, or can't be moved.
        """
        target = self.locate(path)
        if not _is_plain_folder(os.path.dirname(target), self.root):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        moved = folder.locate(path)
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


def _read_all(descriptor: int, size: int) -> bytes:
    """Read to the end of a file that is expected to hold `size` bytes, in one call where that is enough."""
    data = os.read(descriptor, size + 1)
    if len(data) == size:
        return data
    chunks = [data]
    while chunk := os.read(descriptor, 1 << 20):
        chunks.append(chunk)
    return b"".join(chunks)


@lru_cache(maxsize=1024)
def _is_plain_folder(folder: bytes, root: bytes) -> bool:
    """Say whether a folder is there, and really below the root: not where some symbolic link leads."""
    return os.path.isdir(folder) and os.path.realpath(folder) == os.path.realpath(root) + folder[len(root) :]


def replace_file(target: bytes, data: bytes) -> None:
    """Write data beside the target and rename it.

    A folder in its place holds the stale outputs of sources that a file has since replaced, and is removed.
    """
    temporary = os.path.join(
        os.path.dirname(target),
        f"{TEMPORARY_PREFIX}{os.getpid()}-{next(_temporary_number)}".encode(),
    )
    _write_new(temporary, data)
    try:
        os.replace(temporary, target)
    except IsADirectoryError:
        shutil.rmtree(target)
        os.replace(temporary, target)


def _make_folders(target: bytes, root: bytes) -> None:
    """Make the folders of an output; a file in their place is the stale output of a source that was replaced."""
    _is_plain_folder.cache_clear()
    for folder in _parents(target, root):
        if os.path.isfile(folder):
            os.unlink(folder)
    os.makedirs(os.path.dirname(target), exist_ok=True)


def _write_new(temporary: bytes, data: bytes) -> None:
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
    except BaseException:
        os.unlink(temporary)
        raise


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
