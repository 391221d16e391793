"""What a store can't do, as types, and what that means for a destination's working state."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from darkroom.tasks.errors import DarkroomError, DestinationError, SettingsError


class StorageError(Exception):
    """A store could not do what it was asked to.

    Args:
        path: the object's path in its store.
        reason: what was wrong, as a clause that can be shown to users.
        at: the location that a user has to look at: the object's, that of a folder above it, or the store's.
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
    """A file is where a folder belongs, or the reverse; `at` is the obstacle, and `wrong` says which of the two."""

    def __init__(self, path: str, reason: str, at: str, wrong: str) -> None:
        super().__init__(path, reason, at)
        self.args = (path, reason, at, wrong)  # by which it can be sent from a worker
        self.wrong = wrong


class Denied(StorageError):  # noqa: N818
    """This user may not do that."""


class TooLarge(StorageError):  # noqa: N818
    """The object is larger than the caller allows."""


class PathTooLong(StorageError):  # noqa: N818
    """The store holds no object of such a long name or path."""


class NoSpace(StorageError):  # noqa: N818
    """The store is full."""


class Throttled(StorageError):  # noqa: N818
    """The store asks for fewer requests."""

    transient = True


class TimedOut(StorageError):  # noqa: N818
    """The store did not answer in time."""

    transient = True


class Conflict(StorageError):  # noqa: N818
    """The object is not the version that was expected, or it was written to while it was read."""

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
"""What the numbers of `OSError`s mean; the others are `Failed`."""


@contextmanager
def reading() -> Iterator[None]:
    """Translate errors from reading a destination's own files; `NotFound` is left to the caller.

    Raises:
        SettingsError: this user may not read one, or a file is where a folder belongs, or the reverse.
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
def writing(destination: str) -> Iterator[None]:
    """Translate errors from writing a destination's own files, and local files in the making.

    Raises:
        SettingsError: a file is where a folder belongs, or the reverse.
        DestinationError: the destination is full, read-only, broken, or closed to this user.
    """
    try:
        yield
    except Obstructed as error:
        raise _obstruction(error) from error
    except StorageError as error:
        # Permissions are those of one file or folder, anything else concerns the whole destination.
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
        return "It was moved or removed while it was in use: move it back, or give its new place"
    return "See that it is connected and that its disk works"


def _obstruction(error: Obstructed) -> SettingsError:
    return SettingsError(f"{error.at} is {error.wrong}. Move it away, and give the same command again.")
