"""Merge a run's journal into the manifest, in bounded memory.

Rows are wide, and sorting millions of them would take gigabytes. But the manifest and the shards are in the order of
source paths: so the journal is sorted a few shards at a time, and merged a range of paths at a time.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from darkroom.tasks.dataset import sql
from darkroom.tasks.dataset.columns import FURTHER_ROWS_SQL, open_columns
from darkroom.tasks.dataset.integrity import check_whole, is_whole
from darkroom.tasks.dataset.journal import count_rows
from darkroom.tasks.dataset.layout import MANIFEST, RUNS, Workspace
from darkroom.tasks.dataset.manifest import (
    OUTPUT_KEPT,
    SCHEMA,
    RunRecord,
    footer,
    read_info,
    read_record,
    read_whole,
    write_table,
)
from darkroom.tasks.dataset.ranges import ROW_GROUP_ROWS, path_ranges
from darkroom.tasks.errors import DarkroomError
from darkroom.tasks.settings import Job
from darkroom.tasks.storage.store import Store, exists, local_if_there
from darkroom.tasks.vanished import as_failed, find_vanished

_DELETED_SCHEMA = pa.schema([pa.field("source_path", pa.string())])
_OBSOLETE_SCHEMA = pa.schema([pa.field("file_name", pa.string())])


def publish(workspace: Workspace, job: Job, *, ended: bool, work_seconds: float | None = None) -> RunRecord:
    """Merge a run's journal into the manifest, list the outputs that this makes obsolete, and return the run's record.

    Images whose outputs have vanished become failures. Repeating this after an interruption gives the same result.

    Args:
        workspace: the run's workspace, which is kept.
        job: the run's job.
        ended: False if the run was interrupted and is adopted; else the images of `workspace.deleted` are dropped, too.
            If a guard has stopped the run (`workspace.stopped`), nothing is dropped, and failures replace no outputs.
        work_seconds: how long the shards ran, if the run was not interrupted.

    Raises:
        DamagedError: the former manifest or a file of the workspace is damaged; nothing is published.
    """
    store = workspace.store
    stopped = exists(store, workspace.stopped)
    delete = ended and not stopped
    read_whole(workspace.destination)
    for path in [*workspace.journal_parts(), *([workspace.deleted] if delete else [])]:
        check_whole(store, path, "The same command goes on from the undamaged parts.")
    with workspace.scratch() as scratch, sql.connect(scratch) as db:
        deleted = local_if_there(store, workspace.deleted, scratch) if delete else None
        columns = open_columns(db, local_if_there(store, workspace.columns, scratch))
        record = _record(job, work_seconds, deleted) if ended else _record_of_interrupted(workspace, job)
        run_file, manifest, obsolete = (scratch / f"{name}.parquet" for name in ("run", "manifest", "obsolete"))
        sql.view(db, "base", [local_if_there(store, MANIFEST, scratch)], SCHEMA)
        rows = _sorted_journal(db, workspace, scratch, _KEEPING_SQL if stopped else "")
        metadata = footer(job) | {"run": record.model_dump_json()}
        write_table(run_file, rows, metadata)
        db.execute(f"CREATE VIEW journal AS FROM {sql.parquet(run_file)}")
        if find_vanished(db, store, scratch):
            run_file = scratch / "run-2.parquet"
            write_table(run_file, as_failed(db, 2 * ROW_GROUP_ROWS), metadata)
            db.execute(f"CREATE OR REPLACE VIEW journal AS FROM {sql.parquet(run_file)}")
        sql.view(db, "deleted", [deleted], _DELETED_SCHEMA)
        write_table(manifest, _merged(db), footer(job) | columns.metadata, columns.schema)
        db.execute(f"CREATE VIEW published AS FROM {sql.parquet(manifest)}")
        _note_obsolete(db, workspace, scratch, obsolete)
        store.put_file(f"{RUNS}/{job.run_file}", run_file)
        store.put_file(workspace.obsolete, obsolete)
        store.put_file(MANIFEST, manifest)
    return record


def _record(job: Job, work_seconds: float | None, deleted: Path | None) -> RunRecord:
    return RunRecord(
        started_at=job.started_at,
        seconds=max(0.0, (datetime.now(UTC) - job.started_at).total_seconds()),
        work_seconds=work_seconds,
        deleted=pq.read_metadata(deleted).num_rows if deleted else 0,
    )


def _record_of_interrupted(workspace: Workspace, job: Job) -> RunRecord:
    """Return the record of a run that did not end: complete if it was interrupted after publishing."""
    manifest = read_info(workspace.destination)
    if manifest and manifest.run_file == job.run_file:
        with suppress(DarkroomError):
            if found := read_record(workspace.store, f"{RUNS}/{job.run_file}"):
                return found[1]
    return RunRecord(started_at=job.started_at)


_KEEPING_SQL = f"""
    REPLACE (
        if(
            status = 'failed' AND source_path IN (SELECT source_path FROM base WHERE status = 'ok'),
            [{sql.text(OUTPUT_KEPT)}],
            warnings
        ) AS warnings
    )
"""


def _sorted_journal(db: sql.Connection, workspace: Workspace, scratch: Path, replaced: str) -> Iterator[pa.RecordBatch]:
    """Yield the rows of all journal parts, the last of each image, sorted by source path."""
    for parts in _part_groups(workspace.store, workspace.journal_parts()):
        files = [workspace.store.local(part, scratch) for part in parts]
        sql.view(db, "parts", files, SCHEMA)
        query = (
            f"SELECT * {replaced} FROM parts "
            "QUALIFY row_number() OVER (PARTITION BY source_path ORDER BY processed_at DESC, attempts DESC) = 1 "
            "ORDER BY source_path"
        )
        yield from sql.stream(db, query, 2 * ROW_GROUP_ROWS)


def _part_groups(store: Store, parts: list[str]) -> Iterator[list[str]]:
    """Yield journal parts in groups of whole shards, each of about a row group's rows."""
    group: list[str] = []
    rows = 0
    for _, shard in itertools.groupby(parts, key=lambda part: part.rpartition("/")[2].partition("-")[0]):
        of_shard = list(shard)
        rows_of_shard = sum(count_rows(store, part) for part in of_shard)
        if group and rows + rows_of_shard > ROW_GROUP_ROWS:
            yield group
            group, rows = [], 0
        group += of_shard
        rows += rows_of_shard
    if group:
        yield group


_MERGED_SQL = f"""
    WITH
        old AS (FROM base WHERE {{within}}),
        new AS (
            FROM journal WHERE {{within}} AND NOT coalesce(list_contains(warnings, {sql.text(OUTPUT_KEPT)}), false)
        )
    FROM (
        FROM new WHERE status <> 'unchanged'
        UNION ALL BY NAME
        FROM old ANTI JOIN new USING (source_path)
        UNION ALL BY NAME
        SELECT old.* REPLACE (
            new.source_size AS source_size, new.source_mtime AS source_mtime,
            new.source_ctime AS source_ctime, new.source_etag AS source_etag
        )
        FROM old JOIN new USING (source_path) WHERE new.status = 'unchanged'
    ) ANTI JOIN deleted USING (source_path)
    LEFT JOIN (FROM columns WHERE {{within}}) USING (source_path)
    ORDER BY source_path
"""


def _merged(db: sql.Connection) -> Iterator[pa.RecordBatch]:
    """Yield the new manifest's rows, a range of paths at a time."""
    paths = f"SELECT source_path FROM base UNION ALL SELECT source_path FROM journal UNION ALL {FURTHER_ROWS_SQL}"
    for within in path_ranges(db, paths):
        yield from sql.stream(db, _MERGED_SQL.format(within=within), 2 * ROW_GROUP_ROWS)


def _note_obsolete(db: sql.Connection, workspace: Workspace, scratch: Path, obsolete: Path) -> None:
    """Write the outputs that the new manifest no longer names, and those that an interrupted try listed."""
    is_noted = is_whole(workspace.store, workspace.obsolete)
    noted = workspace.store.local(workspace.obsolete, scratch) if is_noted else None
    sql.view(db, "noted", [noted], _OBSOLETE_SCHEMA)
    sql.copy_sealed(
        db,
        "FROM (SELECT file_name FROM base UNION ALL SELECT file_name FROM vanished UNION ALL FROM noted) "
        "ANTI JOIN published USING (file_name) WHERE file_name IS NOT NULL",
        obsolete,
    )
