"""Files that are whole and on the disk, or not there."""

from __future__ import annotations

import ctypes
import itertools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from darkroom.tasks.errors import DestinationError, SettingsError


@contextmanager
def writing(destination: Path) -> Iterator[None]:
    """Tell what keeps a destination's working state from being written for what it is.

    Raises:
        SettingsError: something stands in the way that is not Darkroom's.
        DestinationError: the disk is full, read-only, out of order, or closed to this user.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        _refuse_obstacle(error)
        # Space is short for all of it, but permissions are those of a file.
        closed = _met_at(error) if isinstance(error, PermissionError) else None
        raise DestinationError(closed or destination, os.strerror(error.errno)) from error


@contextmanager
def reading() -> Iterator[None]:
    """Tell what keeps a destination's files from being looked at for what it is; that one isn't there, it leaves.

    Raises:
        SettingsError: this user may not read one, or something stands in its place that is not Darkroom's.
    """
    try:
        yield
    except PermissionError as error:
        raise SettingsError(f"{_met_at(error)} can't be read. Grant this user permission to read it.") from error
    except (NotADirectoryError, IsADirectoryError) as error:
        _refuse_obstacle(error)
        raise


def _refuse_obstacle(error: OSError) -> None:
    """Name what is a file where a folder belongs, or the reverse, if that is what is wrong.

    Raises:
        SettingsError: it is.
    """
    obstacle = _met_at(error)
    if obstacle is None or not isinstance(error, NotADirectoryError | IsADirectoryError | FileExistsError):
        return
    kind = "is a folder where Darkroom has a file" if obstacle.is_dir() else "is a file where Darkroom has a folder"
    raise SettingsError(f"{obstacle} {kind}. Move it away, and give the same command again.") from error


def _met_at(error: OSError) -> Path | None:
    """Return how far on the way to a file an error was met, as far as it tells: of a rename, to what was replaced."""
    name = error.filename2 or error.filename
    if not isinstance(name, str | bytes):
        return None
    path = Path(os.fsdecode(name))
    return next((each for each in (path, *path.parents) if os.path.lexists(each)), path)


def sync_file(path: Path) -> None:
    """Wait until a file's bytes are on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Wait until a folder's names are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_durably(temporary: Path, path: Path) -> None:
    """Give a finished file its name, so that even after a power loss it is there whole or not at all."""
    sync_file(temporary)
    os.replace(temporary, path)
    sync_folder(path.parent)


def write_durably(path: Path, text: str) -> None:
    """Write a small file so that it is there whole, even after a power loss, or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    replace_durably(temporary, path)


def sync_filesystem(path: Path) -> None:
    """Wait until everything that was written to the file system of a folder is on the disk, in one call.

    `syncfs(2)` on Linux, `sync(2)` elsewhere.

    Raises:
        OSError: it could not all be written.
    """
    if sys.platform != "linux":
        os.sync()
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc().syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(descriptor)


@cache
def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def unused_name(folder: Path, stem: str, suffix: str = "") -> str:
    """Return a name in a folder that is not taken yet: `stem` and suffix, or with `.2`, `.3` … between them."""
    tries = itertools.count(2)
    name = f"{stem}{suffix}"
    while (folder / name).exists():
        name = f"{stem}.{next(tries)}{suffix}"
    return name
