"""List a local folder in bounded memory."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from darkroom.tasks.storage.local_files import ctime_us, mtime_us
from darkroom.tasks.storage.naming import path_to_text
from darkroom.tasks.storage.store import BATCH_ROWS, Skip, Skipped, list_schema

if TYPE_CHECKING:
    import pyarrow as pa


class Links(Enum):
    """How to treat symbolic links in a folder."""

    KEPT = "kept"
    """List links with size -1, like anything but regular files."""

    INSIDE = "inside"
    """Follow links to files below the same root; leave out links to folders."""

    ALL = "all"
    """Follow all links, to files and to folders."""


class _Found(NamedTuple):  # made for every file: a frozen dataclass takes four times as long
    path: str
    size: int | None
    mtime_us: int | None
    ctime_us: int | None


class Walk:
    """A walk through a folder.

    Args:
        root: the folder.
        links: how to treat symbolic links.
        excluded: a folder into which no link is followed.
        skip: returns why to leave out a file or folder.
        skipped: collects the number of skipped paths, and the folders that can't be listed.
    """

    def __init__(
        self, root: bytes, links: Links, excluded: bytes | None, skip: Skip | None, skipped: Skipped | None
    ) -> None:
        self._root = root
        self._real_root = os.path.realpath(root)
        self._links = links
        self._excluded = os.path.realpath(excluded) if excluded else None
        self._skip = skip
        self._skipped = skipped
        self._folders: list[tuple[bytes, frozenset[bytes]]] = []
        """Folders still to be listed, each with the real paths of the linked folders above it, to detect loops."""

    def batches(self, prefix: bytes) -> Iterator[pa.RecordBatch]:
        """Yield the files below a prefix in batches of `list_schema`.

        Raises:
            OSError: a folder can't be listed, although its path is not too long, and there is no `skipped`.
        """
        batch: list[_Found] = []
        for found in self._files(prefix):
            batch.append(found)
            if len(batch) == BATCH_ROWS:
                yield _record_batch(batch)
                batch = []
        if batch:
            yield _record_batch(batch)

    def _files(self, prefix: bytes) -> Iterator[_Found]:
        self._folders = [(prefix, frozenset([self._real_root]))]
        while self._folders:
            folder, above = self._folders.pop()
            try:
                with os.scandir(os.path.join(self._root, folder)) as entries:
                    for entry in entries:
                        if found := self._look(entry, folder, above):
                            yield found
            except FileNotFoundError:
                if folder == prefix != b"" or not self._skipped:
                    continue
                self._note_unreadable(folder)
            except OSError as error:
                # No output that a manifest names is below a path that is too long.
                if not self._skipped and error.errno != errno.ENAMETOOLONG:
                    raise
                self._note_unreadable(folder)

    def _note_unreadable(self, folder: bytes) -> None:
        if self._skipped:
            self._skipped.counts["unreadable_folder"] += 1
            self._skipped.unreadable.append(path_to_text(folder))

    def _look(self, entry: os.DirEntry[bytes], folder: bytes, above: frozenset[bytes]) -> _Found | None:
        """Return an entry if it is a file to list; queue a folder; count anything skipped."""
        path = folder + b"/" + entry.name if folder else entry.name
        text = path_to_text(path)
        if entry.is_dir(follow_symlinks=False):
            if not self._is_skipped(text + "/"):
                self._look_at_folder(entry, path, above)
            return None
        is_followed = self._links is not Links.KEPT and entry.is_symlink()
        if is_followed and _is_linked_folder(entry):
            if not self._is_skipped(text + "/"):
                self._look_at_linked_folder(entry, path, above)
            return None
        if self._is_skipped(text):
            return None
        if not is_followed or self._leads_to_file(entry):
            return self._file(entry, text)
        self._leave_out("outside")
        return None

    def _is_skipped(self, path: str) -> bool:
        if reason := self._skip and self._skip(path):
            self._leave_out(reason)
        return bool(reason)

    def _leave_out(self, reason: str) -> None:
        if self._skipped:
            self._skipped.counts[reason] += 1

    def _look_at_folder(self, entry: os.DirEntry[bytes], path: bytes, above: frozenset[bytes]) -> None:
        is_below_link = len(above) > 1
        if is_below_link and _is_below(os.path.realpath(entry.path), self._excluded):
            self._leave_out("linked_folder")
        else:
            self._folders.append((path, above))

    def _look_at_linked_folder(self, entry: os.DirEntry[bytes], path: bytes, above: frozenset[bytes]) -> None:
        real = os.path.realpath(entry.path)
        is_loop = real in above or _is_below(os.path.realpath(os.path.dirname(entry.path)), real)
        if self._links is Links.ALL and not is_loop and not _is_below(real, self._excluded):
            self._folders.append((path, above | {real}))
        else:
            self._leave_out("linked_folder")

    def _leads_to_file(self, entry: os.DirEntry[bytes]) -> bool:
        """Return whether a link to a file is followed: below the root always, elsewhere with `Links.ALL`."""
        real = os.path.realpath(entry.path)
        return _is_below(real, self._real_root) or (self._links is Links.ALL and not _is_below(real, self._excluded))

    def _file(self, entry: os.DirEntry[bytes], text: str) -> _Found | None:
        try:
            status = entry.stat(follow_symlinks=self._links is not Links.KEPT)
        except OSError as error:
            if self._links is not Links.KEPT:
                return _Found(text, None, None, None)
            if error.errno == errno.ENAMETOOLONG:
                return _Found(text, -1, None, None)
            raise
        if stat.S_ISREG(status.st_mode):
            return _Found(text, status.st_size, mtime_us(status), ctime_us(status))
        if self._links is Links.KEPT:
            return _Found(text, -1, None, None)
        self._leave_out("special")
        return None


def _is_linked_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop, or a folder that this user may not enter
        return False


def _is_below(path: bytes, folder: bytes | None) -> bool:
    return folder is not None and (path == folder or path.startswith(folder.rstrip(b"/") + b"/"))


def _record_batch(batch: list[_Found]) -> pa.RecordBatch:
    import pyarrow as pa

    return pa.record_batch(
        [
            pa.array([found.path for found in batch], pa.string()),
            pa.array([found.size for found in batch], pa.int64()),
            *(
                pa.array(times, pa.int64()).cast(pa.timestamp("us", tz="UTC"))
                for times in ([found.mtime_us for found in batch], [found.ctime_us for found in batch])
            ),
            pa.nulls(len(batch), pa.string()),
        ],
        schema=list_schema(),
    )
