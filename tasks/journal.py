"""The journal: what a shard has finished so far, in parts that are there whole or not at all."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.destination import Workspace
from tasks.durable import sync_file
from tasks.manifest import SCHEMA

FLUSH_SECONDS = 5.0
"""A part is written this often, so that this is about how much work a kill can cost a shard."""

Row: TypeAlias = dict[str, Any]
"""One row of `tasks.manifest.SCHEMA`; columns that are left out are null."""


class Journal:
    """The journal of one attempt at a shard. Rows must be added only once their output is written."""

    def __init__(self, workspace: Workspace, shard: int, attempt: str) -> None:
        self._folder = workspace.journal
        self._stem = f"{shard:06d}-{attempt}"
        self._parts = 0
        self._rows: list[Row] = []
        self._flushed_at = time.monotonic()

    def add(self, row: Row) -> None:
        """Add a finished image, and write a part if it is time to."""
        self._rows.append(row)
        if time.monotonic() - self._flushed_at >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was added since the last part, if anything."""
        self._flushed_at = time.monotonic()
        if not self._rows:
            return
        part = self._folder / f"{self._stem}-{self._parts:06d}.parquet"
        temporary = part.with_suffix(".tmp")
        pq.write_table(pa.Table.from_pylist(self._rows, SCHEMA), temporary)
        sync_file(temporary)
        os.replace(temporary, part)
        self._parts += 1
        self._rows = []


def finished_paths(parts: list[Path]) -> set[str]:
    """Return the source paths that journal parts hold: what a former attempt at a shard finished."""
    return {path for part in parts for path in pq.read_table(part, columns=["source_path"])["source_path"].to_pylist()}
