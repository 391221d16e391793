"""Operations on local files and folders by descriptors, for `LocalFolder`."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import itertools
import mmap
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from darkroom.tasks.storage.store import Version

TEMPORARY_PREFIX = ".darkroom-"
"""Prefix of the names of temporary files and folders; no output's name has it."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_US = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_LAST_US = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)

_FOLDER_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC

_process = secrets.token_hex(4)
"""Distinguishes this process from one with the same process id on another machine."""

_number = itertools.count()


class LinkedFolderError(PermissionError):
    """A symbolic link is where an output's folder belongs."""


def is_temporary(path: str) -> bool:
    """Return whether a path is that of a temporary file, or one that an interrupted write left."""
    return path.rpartition("/")[2].startswith(TEMPORARY_PREFIX)


def is_mine(name: str) -> bool:
    """Return whether a temporary name is of this process."""
    return name.startswith(f"{TEMPORARY_PREFIX}{os.getpid()}-{_process}-")


def temporary_name() -> bytes:
    """Return a name that no other thread, process or machine uses."""
    return f"{TEMPORARY_PREFIX}{os.getpid()}-{_process}-{next(_number)}".encode()


def mtime_us(status: os.stat_result) -> int:
    """Return a file's modification time in whole µs since the epoch, clamped to the range of `datetime`."""
    return _whole_us(status.st_mtime_ns)


def ctime_us(status: os.stat_result) -> int:
    """Return the time of a file's last status change, like `mtime_us`."""
    return _whole_us(status.st_ctime_ns)


def _whole_us(time_ns: int) -> int:
    return min(max(time_ns // 1000, _FIRST_US), _LAST_US)


def version_of(status: os.stat_result) -> Version:
    """Return the version of a local file: its size in bytes and its times in whole µs, UTC."""
    mtime, ctime = (_EPOCH + timedelta(microseconds=time) for time in (mtime_us(status), ctime_us(status)))
    return Version(status.st_size, mtime, ctime=ctime)


@contextmanager
def opened_folder(root: bytes, names: list[bytes], *, make: bool = False, clear: bool = False) -> Iterator[int]:
    """Provide a descriptor of a folder, opened without following symbolic links below the root.

    Args:
        root: an existing folder.
        names: the names of the folders from the root down.
        make: create missing folders.
        clear: remove a file in the place of a folder.
    """
    descriptor = os.open(root, _FOLDER_FLAGS)
    try:
        for name in names:
            above, descriptor = descriptor, _open_folder(name, descriptor, make=make, clear=clear)
            os.close(above)
        yield descriptor
    finally:
        os.close(descriptor)


def _open_folder(name: bytes, above: int, *, make: bool, clear: bool) -> int:
    try:
        return os.open(name, _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=above)
    except FileNotFoundError:
        if not make:
            raise
    except NotADirectoryError:
        if not make:
            raise
        if stat.S_ISLNK(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode):
            raise LinkedFolderError from None
        if not clear:
            raise
        os.unlink(name, dir_fd=above)
    with suppress(FileExistsError):  # another process was quicker
        os.mkdir(name, dir_fd=above)
    return os.open(name, _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=above)


def replace_file(
    folder: int, name: bytes, data: bytes | memoryview, *, durable: bool, after: os.stat_result | None = None
) -> Version:
    """Write a temporary file in an open folder, and rename it to the file's name.

    Args:
        folder: a descriptor of the folder.
        name: the file's name.
        data: its bytes.
        durable: flush the file and its name to the disk.
        after: status of the replaced file, from whose version the new one must differ.
    """
    temporary = temporary_name()
    try:
        version = _write_new(folder, temporary, data, durable, after)
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):  # the folder may be what is broken
            os.unlink(temporary, dir_fd=folder)
        raise
    if durable:
        sync_file(b".", folder)
    return version


def _write_new(
    folder: int, name: bytes, data: bytes | memoryview, durable: bool, after: os.stat_result | None
) -> Version:
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666, dir_fd=folder)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        status = os.fstat(descriptor)
        if after and mtime_us(status) <= mtime_us(after):  # the clock stands still, or was set back
            time_ns = 1000 * (mtime_us(after) + 1)
            os.utime(descriptor, ns=(time_ns, time_ns))
            status = os.fstat(descriptor)
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return version_of(status)


def move_file(file: bytes, folder: int, name: bytes) -> None:
    """Move a finished file, maybe from another file system, to a name in an open folder, durably."""
    sync_file(file)
    try:
        os.replace(file, name, dst_dir_fd=folder)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with open(file, "rb") as source:
            # Not closed here: after an error, the traceback still has views of the map, with which closing fails.
            data = mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ)
        replace_file(folder, name, memoryview(data), durable=True)
    else:
        sync_file(b".", folder)


def sync_file(path: bytes, folder: int | None = None) -> None:
    """Flush a file, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_filesystem(path: bytes) -> None:
    """Flush a folder's file system to the disk: `syncfs(2)` on Linux, `sync(2)` elsewhere."""
    if sys.platform != "linux":
        os.sync()
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc().syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
    finally:
        os.close(descriptor)


@cache
def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


@contextmanager
def locked(folder: int, name: bytes) -> Iterator[os.stat_result | None]:
    """Lock a file against other conditional writes; provide its status, or None if it doesn't exist."""
    lock = os.path.splitext(name)[0] + b".lock"
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666, dir_fd=folder)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        status = None
        with suppress(FileNotFoundError):
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        yield status
    finally:
        os.close(descriptor)


def remove_empty_folders(target: bytes, root: bytes) -> None:
    """Remove the empty folders between a removed file and the root."""
    folder = os.path.dirname(target)
    with suppress(OSError):
        while len(folder) > len(root):
            os.rmdir(folder)
            folder = os.path.dirname(folder)
