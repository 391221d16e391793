"""The journal: what a shard has finished so far, in parts that are there whole or not at all.

Before a part is written, all outputs that it tells of are on the disk: one wait for the whole file system, not one
per image. So after a power loss, too, what the journal says is true.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq

from darkroom.tasks.dataset.integrity import damage, sealed_writer
from darkroom.tasks.dataset.layout import Workspace
from darkroom.tasks.dataset.manifest import SCHEMA
from darkroom.tasks.dataset.rows import ManifestRow, to_table
from darkroom.tasks.storage.durable import replace_durably, sync_filesystem, writing

FLUSH_SECONDS = 5.0
"""A part is written this often, so that this is about how much work a kill can cost a shard."""


class Journal:
    """The journal of one attempt at a shard. Rows must be added only once their output is written.

    Args:
        workspace: the run's working folder.
        shard: the shard's number.
        attempt: a name that no other attempt has.
        sync: whether to wait until outputs are on the disk before they are journalled.
    """

    def __init__(self, workspace: Workspace, shard: int, attempt: str, *, sync: bool = True) -> None:
        self._folder = workspace.journal
        self._root = workspace.destination.root
        self._images = workspace.destination.images
        self._sync = sync
        self._stem = f"{shard:06d}-{attempt}"
        self._parts = 0
        self._rows: list[ManifestRow] = []
        self._flushed_at = time.monotonic()

    def add(self, row: ManifestRow) -> None:
        """Add a finished image, and write a part if it is time to."""
        self._rows.append(row)
        if time.monotonic() - self._flushed_at >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was added since the last part, if anything.

        Raises:
            DestinationError: it can't be written.
        """
        self._flushed_at = time.monotonic()
        if not self._rows:
            return
        part = self._folder / f"{self._stem}-{self._parts:06d}.parquet"
        temporary = part.with_suffix(".tmp")
        with writing(self._root):
            if self._sync and self._images.is_dir():
                sync_filesystem(self._images)
            with sealed_writer(temporary, SCHEMA) as writer:
                writer.write_table(to_table(self._rows, SCHEMA))
            replace_durably(temporary, part)
        self._parts += 1
        self._rows = []


def whole_parts(parts: list[Path]) -> list[Path]:
    """Return the journal parts that can be relied on, and take the others out of the journal."""
    whole: list[Path] = []
    for part in parts:
        with suppress(FileNotFoundError):  # another attempt at its shard has taken it out
            if damage(part):
                os.replace(part, part.with_suffix(".damaged"))
            else:
                whole.append(part)
    return whole


def finished_paths(parts: list[Path]) -> set[str]:
    """Return the source paths that journal parts hold: what a former attempt at a shard finished."""
    return {path for part in parts for path in pq.read_table(part, columns=["source_path"])["source_path"].to_pylist()}
