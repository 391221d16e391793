"""Outputs that a run may have written without journalling them: they are what the manifest says, or are removed.

A run that dies leaves outputs that no row describes. Each was made of the bytes that its source had then; if the source
gets its former bytes back, or another name, no later comparison of listing and manifest would find it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from darkroom.tasks.dataset import sql
from darkroom.tasks.dataset.integrity import is_whole
from darkroom.tasks.dataset.layout import MANIFEST, Workspace, output_path
from darkroom.tasks.dataset.manifest import SCHEMA
from darkroom.tasks.dataset.outputs import has_bytes
from darkroom.tasks.settings import Job
from darkroom.tasks.storage.store import Store, local_if_there

_PATHS = pa.schema([pa.field("source_path", pa.string())])
_NAMES = pa.schema([pa.field("file_name", pa.string())])
_BATCH_ROWS = 65_536


def remove_unjournalled(workspace: Workspace, job: Job) -> None:
    """Remove what a run may have written and not journalled, unless its bytes are those that the manifest names.

    Suspect are the images of shards that were begun, without those that the journal has: usually none after a run that
    came to its end, and at most a shard for each of its workers after one that died. Their outputs are read and hashed.
    If the plan is damaged, so that it isn't known which they are, all outputs of the manifest are.

    Only the holder of the destination's lease may call this, after publishing what the journal has.

    Raises:
        SettingsError: this user may not read an output.
    """
    begun = workspace.begun_shards()
    if not begun:
        return
    store = workspace.store
    with workspace.scratch() as scratch, sql.connect(scratch) as db:
        sql.view_if_there(db, "manifest", local_if_there(store, MANIFEST, scratch), SCHEMA)
        if is_whole(store, workspace.plan):
            suspects = f"FROM {sql.parquet(_write_suspects(db, workspace, begun, job, scratch))}"
        else:
            suspects = "SELECT file_name FROM manifest WHERE file_name IS NOT NULL"
        found = f"SELECT file_name, output_sha256 FROM ({suspects}) LEFT JOIN manifest USING (file_name)"
        with ThreadPoolExecutor() as pool:
            for batch in sql.stream(db, found, _BATCH_ROWS):
                names, hashes = (batch.column(number).to_pylist() for number in range(2))
                for _ in pool.map(_remove_unless_known, [store] * len(names), names, hashes):
                    pass


def _write_suspects(db: sql.Connection, workspace: Workspace, begun: list[int], job: Job, scratch: Path) -> Path:
    """Write where the outputs of unjournalled images of begun shards are, and return the file."""
    store = workspace.store
    paths, suspects = scratch / "begun.parquet", scratch / "suspects.parquet"
    with pq.ParquetFile(store.local(workspace.plan, scratch)) as plan, pq.ParquetWriter(paths, _PATHS) as writer:
        for number in begun:
            writer.write_table(plan.read_row_group(number, columns=_PATHS.names).cast(_PATHS))
    parts = [store.local(part, scratch) for part in workspace.journal_parts()]
    journalled = f"ANTI JOIN {sql.parquet(*parts)} AS journal USING (source_path)" if parts else ""
    with pq.ParquetWriter(suspects, _NAMES) as writer:
        for batch in sql.stream(db, f"SELECT source_path FROM {sql.parquet(paths)} {journalled}", _BATCH_ROWS):
            names = [output_path(path, job) for path in batch.column(0).to_pylist()]
            writer.write_batch(pa.record_batch([names], schema=_NAMES))
    return suspects


def _remove_unless_known(store: Store, file_name: str, sha256: str | None) -> None:
    if sha256 is None or not has_bytes(store, file_name, sha256):
        store.delete([file_name])
