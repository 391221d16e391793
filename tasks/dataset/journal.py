"""The journal: a shard's finished images, in parts that are each written whole or not at all.

All outputs that a part names are on the disk before it is written, so that the journal is right even after a power
loss. That costs one flush of the file system for each part, not one for each image.
"""

from __future__ import annotations

import io
import time
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq

from darkroom.tasks.dataset.claim import Claim
from darkroom.tasks.dataset.integrity import find_damage, sealed_writer
from darkroom.tasks.dataset.layout import Workspace
from darkroom.tasks.dataset.manifest import SCHEMA
from darkroom.tasks.dataset.rows import ManifestRow, to_table
from darkroom.tasks.errors import DarkroomError
from darkroom.tasks.storage.store import Store
from darkroom.tasks.storage.store_errors import NotFound, StorageError, writing

FLUSH_SECONDS = 5.0
"""Interval of parts, and so about the most work that a shard can lose to a kill."""


class Journal:
    """The journal of one attempt at a shard. Add a row only once its output is written.

    Args:
        claim: the attempt's claim on the shard.
        sync: whether to flush outputs to the disk before journalling them.
    """

    def __init__(self, claim: Claim, *, sync: bool = True) -> None:
        self._claim = claim
        self._store = claim.workspace.store
        self._sync = sync
        self._stem = f"{claim.workspace.journal}/{claim.shard:06d}-{claim.attempt}"
        self._parts = 0
        self._rows: list[ManifestRow] = []
        self._flushed_at = time.monotonic()

    def add(self, row: ManifestRow) -> None:
        """Add a finished image, and write a part if one is due."""
        self._rows.append(row)
        if time.monotonic() - self._flushed_at >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the rows since the last part, if any.

        Raises:
            DestinationError: the destination can't be written to.
            ReplacedError: another attempt has taken over the shard, or the run has ended.
        """
        self._flushed_at = time.monotonic()
        if not self._rows:
            return
        part = io.BytesIO()
        with sealed_writer(part, SCHEMA) as writer:
            writer.write_table(to_table(self._rows, SCHEMA))
        with writing(self._store.location):
            if self._sync:
                self._store.flush()
            self._claim.check(look=True)
            self._store.put(f"{self._stem}-{self._parts:06d}.parquet", part.getbuffer(), durable=True)
        self._parts += 1
        self._rows = []


def whole_parts(store: Store, parts: list[str]) -> list[str]:
    """Return the intact journal parts, and rename the damaged ones, which removes them from the journal."""
    whole: list[str] = []
    for part in parts:
        with suppress(NotFound):  # another attempt at the shard has renamed it
            if find_damage(store, part):
                store.move(part, f"{part}.damaged")
            else:
                whole.append(part)
    return whole


def count_journalled(workspace: Workspace) -> int:
    """Return the number of images in the readable parts of a run's journal, up to the first unreadable one."""
    images = 0
    with suppress(StorageError, DarkroomError, pa.ArrowInvalid):
        for part in workspace.journal_parts():
            images += count_rows(workspace.store, part)
    return images


def count_rows(store: Store, part: str) -> int:
    """Return the number of rows of a Parquet file."""
    with store.open(part) as file:
        return int(pq.read_metadata(file).num_rows)


def finished_paths(store: Store, parts: list[str]) -> set[str]:
    """Return the source paths in journal parts, which former attempts at a shard finished."""
    paths: set[str] = set()
    for part in parts:
        with store.open(part) as file:
            paths.update(pq.read_table(file, columns=["source_path"])["source_path"].to_pylist())
    return paths
