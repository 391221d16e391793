"""Remove outputs that a run wrote without journalling them, unless the manifest has the same bytes.

A run that dies leaves outputs that no row describes, made of the bytes that the sources had then. If a source gets its
former bytes back, or another name, no later comparison of listing and manifest would find these outputs.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from darkroom.tasks.dataset import sql
from darkroom.tasks.dataset.integrity import find_damage, is_whole
from darkroom.tasks.dataset.journal import count_rows
from darkroom.tasks.dataset.layout import MANIFEST, RUNS, Workspace, output_paths
from darkroom.tasks.dataset.manifest import SCHEMA
from darkroom.tasks.dataset.outputs import has_bytes
from darkroom.tasks.settings import Job
from darkroom.tasks.storage.store import Store, local_if_there
from darkroom.tasks.storage.store_errors import NotFound

_PATHS = pa.schema([pa.field("source_path", pa.string())])
_NAMES = pa.schema([pa.field("file_name", pa.string())])
_BATCH_ROWS = 65_536


def remove_unjournalled(workspace: Workspace, job: Job, begun: list[int]) -> None:
    """Remove the outputs that a run may have written without journalling them, unless the manifest has their hash.

    The suspects are the images of begun shards that the journal lacks: at most a shard for each worker of a dead run.
    Their outputs are read and hashed. If the plan is damaged, all outputs of the manifest are suspect.

    Only the holder of the destination's lease may call this, after publishing the journal.

    Args:
        workspace: the run's workspace.
        job: the run's job.
        begun: the numbers of the begun shards.

    Raises:
        SettingsError: this user may not read an output.
    """
    if _all_journalled(workspace, job):
        return
    store = workspace.store
    with workspace.scratch() as scratch, sql.connect(scratch) as db:
        sql.view(db, "manifest", [local_if_there(store, MANIFEST, scratch)], SCHEMA)
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


def _all_journalled(workspace: Workspace, job: Job) -> bool:
    """Return whether a run's file has as many rows as its plan: it has one for each journalled image."""
    files = [workspace.plan, f"{RUNS}/{job.run_file}"]
    with suppress(NotFound):
        if not any(find_damage(workspace.store, file, footer_only=True) for file in files):
            planned, journalled = (count_rows(workspace.store, file) for file in files)
            return planned == journalled
    return False


def _write_suspects(db: sql.Connection, workspace: Workspace, begun: list[int], job: Job, scratch: Path) -> Path:
    """Write the names of the outputs of the begun shards' unjournalled images to a file, and return it."""
    store = workspace.store
    paths, suspects = scratch / "begun.parquet", scratch / "suspects.parquet"
    with pq.ParquetFile(store.local(workspace.plan, scratch)) as plan, pq.ParquetWriter(paths, _PATHS) as writer:
        for number in begun:
            writer.write_table(plan.read_row_group(number, columns=_PATHS.names).cast(_PATHS))
    parts = [store.local(part, scratch) for part in workspace.journal_parts()]
    journalled = f"ANTI JOIN {sql.parquet(*parts)} AS journal USING (source_path)" if parts else ""
    path_of = output_paths(job)
    with pq.ParquetWriter(suspects, _NAMES) as writer:
        for batch in sql.stream(db, f"SELECT source_path FROM {sql.parquet(paths)} {journalled}", _BATCH_ROWS):
            names = list(map(path_of, batch.column(0).to_pylist()))
            writer.write_batch(pa.record_batch([names], schema=_NAMES))
    return suspects


def _remove_unless_known(store: Store, file_name: str, sha256: str | None) -> None:
    if sha256 is None or not has_bytes(store, file_name, sha256):
        store.delete([file_name])
