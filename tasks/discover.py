"""List a source: every image below a folder, with its size and modification time, as a Parquet file."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from darkroom.tasks.storage.local import TEMPORARY_PREFIX, mtime_us
from darkroom.tasks.storage.naming import is_image_name, path_to_text

BATCH_ROWS = 65_536
"""Rows held in memory at a time."""

LISTING_SCHEMA = pa.schema(
    [
        pa.field("source_path", pa.string(), nullable=False),
        pa.field("source_size", pa.int64()),
        pa.field("source_mtime", pa.timestamp("us", tz="UTC")),
        pa.field("source_etag", pa.string()),
    ]
)
OUTPUTS_SCHEMA = pa.schema(
    [pa.field("file_name", pa.string(), nullable=False), pa.field("size", pa.int64(), nullable=False)]
)
"""What isn't a regular file has a size of -1, which is no output's."""


@dataclass(slots=True)
class Skipped:
    """What a listing left out, and why."""

    counts: Counter[str] = field(default_factory=Counter)
    """By reason: `hidden`, `not_image`, `special` (a socket, a device), `linked_folder`, `outside` (a
    symbolic link that leads out of the source), `unreadable_folder`."""

    unreadable: list[str] = field(default_factory=list)
    """Folders that could not be listed: what is below them is unknown, not gone."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A listing of the source."""

    path: Path
    images: int
    bytes: int
    skipped: Skipped


class _Found(NamedTuple):  # made for every file: a frozen dataclass takes four times as long
    path: str
    size: int | None
    mtime_us: int | None


def discover(
    source: Path,
    listing: Path,
    *,
    follow_symlinks: bool = False,
    destination: Path | None = None,
    limit: int | None = None,
) -> Listing:
    """Write the listing of all images below a folder, in no particular order.

    An image whose status can't be read (a dangling symbolic link, a loop) is listed without size and
    time. Memory does not grow with the number of files in a folder or in all.

    Args:
        source: the folder.
        listing: the Parquet file to write, of `LISTING_SCHEMA`.
        follow_symlinks: also take what symbolic links lead to outside the source, and linked folders.
        destination: links that lead there are never followed: outputs are no sources.
        limit: list the first so many images only, and look no further.
    """
    skipped = Skipped()
    images = total = 0
    with pq.ParquetWriter(listing, LISTING_SCHEMA, compression="zstd") as writer:
        links = _Links(os.fsencode(source), os.fsencode(destination) if destination else None, follow_symlinks)
        for batch in _batched(islice(_walk(os.fsencode(source), skipped, links), limit)):
            writer.write_batch(_listing_batch(batch))
            images += len(batch)
            total += sum(found.size or 0 for found in batch)
    return Listing(listing, images, total, skipped)


def list_outputs(images: Path, listing: Path) -> None:
    """Write name and size of every file below a destination's `images/`, of `OUTPUTS_SCHEMA`.

    Temporary files are what a run that died had begun to write; they are removed. Only the holder of the
    destination's lease may call this.
    """
    _write_outputs(images, listing, _walk_outputs(os.fsencode(images)))


def survey_outputs(images: Path, listing: Path) -> list[str]:
    """Write what `list_outputs` does, changing nothing: temporary files are listed too.

    Returns:
        The folders, relative to the manifest, that could not be listed: what is below them is unknown, not gone.
    """
    unlisted: list[str] = []
    _write_outputs(images, listing, _walk_outputs(os.fsencode(images), unlisted))
    return [f"{images.name}/{folder}" if folder else images.name for folder in unlisted]


def is_temporary(file_name: str) -> bool:
    """Say whether a file is what a run that died had begun to write."""
    return file_name.rpartition("/")[2].startswith(TEMPORARY_PREFIX)


def _write_outputs(images: Path, listing: Path, outputs: Iterator[_Found]) -> None:
    with pq.ParquetWriter(listing, OUTPUTS_SCHEMA, compression="zstd") as writer:
        for batch in _batched(outputs):
            writer.write_batch(
                pa.record_batch(
                    [
                        pa.array([f"{images.name}/{found.path}" for found in batch], pa.string()),
                        pa.array([found.size for found in batch], pa.int64()),
                    ],
                    schema=OUTPUTS_SCHEMA,
                )
            )


def _listing_batch(batch: list[_Found]) -> pa.RecordBatch:
    return pa.record_batch(
        [
            pa.array([found.path for found in batch], pa.string()),
            pa.array([found.size for found in batch], pa.int64()),
            pa.array([found.mtime_us for found in batch], pa.int64()).cast(pa.timestamp("us", tz="UTC")),
            pa.nulls(len(batch), pa.string()),
        ],
        schema=LISTING_SCHEMA,
    )


def _batched(found: Iterator[_Found]) -> Iterator[list[_Found]]:
    batch: list[_Found] = []
    for item in found:
        batch.append(item)
        if len(batch) == BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


class _Links:
    """Which symbolic links a listing follows."""

    def __init__(self, source: bytes, destination: bytes | None, follow: bool) -> None:
        self.source = os.path.realpath(source)
        self.destination = os.path.realpath(destination) if destination else None
        self.follow = follow

    def leads_to_file(self, entry: os.DirEntry[bytes]) -> bool:
        """Say whether a link to a file is followed: within the source always, elsewhere if told so."""
        real = os.path.realpath(entry.path)
        return _is_below(real, self.source) or (self.follow and not _is_below(real, self.destination))

    def leads_to_folder(self, real: bytes, above: frozenset[bytes]) -> bool:
        """Say whether a link to a folder is followed: if told so, and unless it leads back up."""
        return self.follow and real not in above and not _is_below(real, self.destination)


def _is_below(path: bytes, folder: bytes | None) -> bool:
    return folder is not None and (path == folder or path.startswith(folder.rstrip(b"/") + b"/"))


def _walk(root: bytes, skipped: Skipped, links: _Links) -> Iterator[_Found]:
    """Yield every image below a folder; what isn't one is counted."""
    # Each folder with the real paths of those that links have led through, by which a loop is recognised.
    folders: list[tuple[bytes, frozenset[bytes]]] = [(b"", frozenset([links.source]))]
    while folders:
        folder, above = folders.pop()
        try:
            with os.scandir(os.path.join(root, folder)) as entries:
                for entry in entries:
                    path = folder + b"/" + entry.name if folder else entry.name
                    if entry.name.startswith(b"."):
                        skipped.counts["hidden"] += 1
                    elif entry.is_dir(follow_symlinks=False):
                        folders.append((path, above))
                    elif _is_linked_folder(entry):
                        real = os.path.realpath(entry.path)
                        if links.leads_to_folder(real, above):
                            folders.append((path, above | {real}))
                        else:
                            skipped.counts["linked_folder"] += 1
                    elif not is_image_name(text := path_to_text(path)):
                        skipped.counts["not_image"] += 1
                    elif entry.is_symlink() and not links.leads_to_file(entry):
                        skipped.counts["outside"] += 1
                    else:
                        yield from _file(entry, text, skipped)
        except OSError:
            skipped.counts["unreadable_folder"] += 1
            skipped.unreadable.append(path_to_text(folder))


def _is_linked_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_symlink() and entry.is_dir()
    except OSError:  # a loop, or it leads to where this user may not look
        return False


def _file(entry: os.DirEntry[bytes], text: str, skipped: Skipped) -> Iterator[_Found]:
    try:
        status = entry.stat()
    except OSError:
        yield _Found(text, None, None)
        return
    if stat.S_ISREG(status.st_mode):
        yield _Found(text, status.st_size, mtime_us(status))
    else:
        skipped.counts["special"] += 1


def _walk_outputs(root: bytes, unlisted: list[str] | None = None) -> Iterator[_Found]:
    """Yield every file below a folder.

    Given a list for the folders that can't be listed, it changes nothing; without, such a folder ends it all, and
    temporary files are removed.
    """
    folders = [b""]
    while folders:
        folder = folders.pop()
        try:
            yield from _outputs(root, folder, folders, clean=unlisted is None)
        except OSError:
            if unlisted is None:
                raise
            unlisted.append(path_to_text(folder))


def _outputs(root: bytes, folder: bytes, folders: list[bytes], *, clean: bool) -> Iterator[_Found]:
    """Yield the files of one folder, and add the folders in it to those that are still to be looked at."""
    try:
        entries = os.scandir(os.path.join(root, folder))
    except FileNotFoundError:
        return
    with entries:
        for entry in entries:
            path = folder + b"/" + entry.name if folder else entry.name
            if entry.is_dir(follow_symlinks=False):
                folders.append(path)
            elif clean and entry.name.startswith(TEMPORARY_PREFIX.encode()):
                os.unlink(entry.path)
            else:
                status = entry.stat(follow_symlinks=False)
                size = status.st_size if stat.S_ISREG(status.st_mode) else -1
                yield _Found(path_to_text(path), size, None)
