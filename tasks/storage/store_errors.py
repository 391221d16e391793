"""The errors of stores, and their translation to errors of runs."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from darkroom.tasks.errors import DarkroomError, DestinationError, SettingsError


class StorageError(Exception):
    """An operation of a store failed.

    Args:
        path: the object's path in its store.
        reason: why, as a clause for users.
        at: the location of the problem: the object, a folder above it, or the store.
    """

    transient = False
    """Whether the same request may succeed within seconds."""

    def __init__(self, path: str, reason: str, at: str) -> None:
        super().__init__(path, reason, at)
        self.path = path
        self.reason = reason
        self.at = at

    def __str__(self) -> str:
        return f"{self.at}: {self.reason}"


class NotFound(StorageError):  # noqa: N818 - these are the design's names
    """There is no such object."""


class Obstructed(NotFound):
    """A file is in the place of a folder, or the reverse: `at` is the obstacle, and `wrong` describes it."""

    def __init__(self, path: str, reason: str, at: str, wrong: str) -> None:
        super().__init__(path, reason, at)
        self.args = (path, reason, at, wrong)  # by which exceptions are pickled
        self.wrong = wrong


class Denied(StorageError):  # noqa: N818
    """This user may not do that."""


class TooLarge(StorageError):  # noqa: N818
    """The object is larger than the caller allows."""


class PathTooLong(StorageError):  # noqa: N818
    """The name or path is too long for the store."""


class NoSpace(StorageError):  # noqa: N818
    """The store is full."""


class Throttled(StorageError):  # noqa: N818
    """The store asks for fewer requests."""

    transient = True


class TimedOut(StorageError):  # noqa: N818
    """The store did not answer in time."""

    transient = True


class Conflict(StorageError):  # noqa: N818
    """The object is not the expected version, or was written to while it was read."""

    transient = True


class Failed(StorageError):  # noqa: N818
    """Anything else, such as a broken connection or disk."""

    transient = True


KINDS: dict[int, type[StorageError]] = {
    errno.ENOENT: NotFound,
    errno.ELOOP: NotFound,
    errno.ENOTDIR: Obstructed,
    errno.EISDIR: Obstructed,
    errno.EEXIST: Obstructed,
    errno.EACCES: Denied,
    errno.EPERM: Denied,
    errno.EROFS: Denied,
    errno.ENAMETOOLONG: PathTooLong,
    errno.ENOSPC: NoSpace,
    errno.EDQUOT: NoSpace,
    errno.EFBIG: NoSpace,
    errno.ETIMEDOUT: TimedOut,
}
"""The types of `OSError`s by number; others are `Failed`."""


MOVED = "It was moved or removed while it was in use: move it back, or give its new place"
"""The remedy for a destination whose folder or working state is missing."""


@contextmanager
def reading() -> Iterator[None]:
    """Translate errors from reading a destination's own files, except `NotFound`.

    Raises:
        SettingsError: this user may not read a file, or a file is in the place of a folder, or the reverse.
        DarkroomError: the store does not answer, or its disk is broken.
    """
    try:
        yield
    except Denied as error:
        raise SettingsError(f"{error.at} can't be read. Grant this user permission to read it.") from error
    except Obstructed as error:
        raise _obstruction(error) from error
    except NotFound:
        raise
    except StorageError as error:
        raise DarkroomError(f"{error.at} can't be read: {error.reason}. Give the same command again.") from error


@contextmanager
def reading_source() -> Iterator[None]:
    """Translate errors from listing a source, or reading a list of images.

    Raises:
        SettingsError: it is not there, or this user may not read it.
        DarkroomError: the store does not answer.
    """
    try:
        yield
    except StorageError as error:
        kind = DarkroomError if error.transient else SettingsError
        again = " Give the same command again." if error.transient else ""
        raise kind(f"source: {error.at} can't be read: {error.reason}.{again}") from error


@contextmanager
def writing(destination: str) -> Iterator[None]:
    """Translate errors from writing a destination's own files and temporary files.

    Raises:
        SettingsError: a file is in the place of a folder, or the reverse.
        DestinationError: the destination is full, read-only, broken, or closed to this user.
    """
    try:
        yield
    except Obstructed as error:
        raise _obstruction(error) from error
    except StorageError as error:
        # Permissions concern one file or folder, all other errors the whole destination.
        at = error.at if isinstance(error, Denied) else destination
        raise DestinationError(at, error.reason, _remedy(type(error))) from error
    except OSError as error:
        if error.errno is None:
            raise
        remedy = _remedy(KINDS.get(error.errno, Failed))
        raise DestinationError(destination, os.strerror(error.errno), remedy) from error


def _remedy(kind: type[StorageError]) -> str:
    if issubclass(kind, NoSpace):
        return "Free some space there"
    if issubclass(kind, Denied):
        return "Grant this user permission to write there"
    if kind is NotFound:
        return MOVED
    return "See that it is connected and that its disk works"


def _obstruction(error: Obstructed) -> SettingsError:
    return SettingsError(f"{error.at} is {error.wrong}. Move it away, and give the same command again.")
