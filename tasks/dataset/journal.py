"""The journal: what a shard has finished so far, in parts that are there whole or not at all.

Before a part is written, all outputs that its rows name are on the disk: one wait for the whole file system, not one
per image. So after a power loss, too, what the journal says is true.
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
"""A part is written this often, so that this is about how much work a kill can cost a shard."""


class Journal:
    """The journal of one attempt at a shard. Rows must be added only once their output is written.

    Args:
        claim: of the attempt.
        sync: whether to wait until outputs are on the disk before they are journalled.
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
        """Write what was added since the last part, if anything.

        Raises:
            DestinationError: it can't be written.
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
    """Return the journal parts that can be relied on, and take the others out of the journal."""
    whole: list[str] = []
    for part in parts:
        with suppress(NotFound):  # another attempt at its shard has taken it out
            if find_damage(store, part):
                store.move(part, f"{part}.damaged")
            else:
                whole.append(part)
    return whole


def count_journalled(workspace: Workspace) -> int:
    """Return the number of images in a run's journal, as far as it can be read."""
    images = 0
    with suppress(StorageError, DarkroomError, pa.ArrowInvalid):
        for part in workspace.journal_parts():
            images += count_rows(workspace.store, part)
    return images


def count_rows(store: Store, part: str) -> int:
    """Return the number of rows in a journal part."""
    with store.open(part) as file:
        return int(pq.read_metadata(file).num_rows)


def finished_paths(store: Store, parts: list[str]) -> set[str]:
    """Return the source paths that journal parts hold: what a former attempt at a shard finished."""
    paths: set[str] = set()
    for part in parts:
        with store.open(part) as file:
            paths.update(pq.read_table(file, columns=["source_path"])["source_path"].to_pylist())
    return paths
