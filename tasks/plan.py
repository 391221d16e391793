"""Compare listing and manifest, and cut the work into shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from darkroom.tasks.dataset import sql
from darkroom.tasks.dataset.columns import open_columns
from darkroom.tasks.dataset.integrity import damage, find_damage, sealed_writer
from darkroom.tasks.dataset.layout import MANIFEST, Workspace
from darkroom.tasks.dataset.manifest import SCHEMA, read_info
from darkroom.tasks.dataset.moved import find_moved
from darkroom.tasks.dataset.rows import PlannedImage, arrow_schema, from_table
from darkroom.tasks.dataset.unlisted import below
from darkroom.tasks.discover import Listing, list_outputs
from darkroom.tasks.errors import RETRIED_NEXT_RUN, DamagedError, ErrorCode
from darkroom.tasks.reporting.text import describe_nothing_to_do
from darkroom.tasks.selection import Selection
from darkroom.tasks.settings import Job
from darkroom.tasks.storage.store import Store, local_if_there
from darkroom.tasks.storage.store_errors import NotFound, reading
from darkroom.tasks.wording import counted

R = TypeVar("R")

BYTES_PER_SECOND = 25_000_000
"""Source bytes that a worker process handles in a second: two took 7 s for 352 camera JPEGs of 2.2 MB. Only the size of
shards depends on it, so that a factor of two does not matter."""

IMAGE_OVERHEAD_BYTES = 60_000
"""Fixed cost of an image, in bytes: a 110 KB JPEG takes two and a half times as long as its bytes suggest."""

SHARD_SECONDS = (2.0, 30.0)
"""Least and most predicted work of a shard: a task run costs 0.1–0.2 s, and a lost worker loses its shard."""

SHARDS_PER_WORKER = 4
MAX_SHARDS = 2_000

PLAN_SCHEMA = arrow_schema(PlannedImage)


@dataclass(frozen=True, slots=True)
class Plan:
    """The figures of a run's plan."""

    shards: tuple[int, ...]
    """Number of images of each shard; each is a row group of the plan."""

    reasons: dict[str, int] = field(default_factory=dict)
    """Number of images to process by reason: `new`, `moved`, `changed`, `checked`, `retry`, `missing`, `damaged`,
    `forced`, `rebuild`."""

    deleted: int = 0
    """Images of the manifest whose paths the source no longer has."""

    gone: int = 0
    """How many of the deleted images were not just moved."""

    left_out: int = 0
    """How many of the gone images the rules leave out of the listing, whether or not they still exist."""

    adopted: int = 0
    """Images that interrupted runs had finished and that have not changed since."""

    unchanged: int = 0
    """Other images that have not changed."""

    known: int = 0
    """Images in the manifest."""

    has_new_columns: bool = False
    """Whether the further columns have changed since they became part of the manifest."""

    known_failed: int = 0
    """How many of the known images failed."""

    @property
    def images(self) -> int:
        """Number of images to process."""
        return sum(self.shards)

    def describe(self) -> str:
        """Return one line about the plan."""
        if self.nothing_to_do:
            return describe_nothing_to_do(self.adopted, self.unchanged)
        adopted = f"{self.adopted:,} adopted, " if self.adopted else ""
        todo = ", ".join(f"{count:,} {reason}" for reason, count in self.reasons.items())
        return (
            f"{counted(self.images, 'image')} to process ({todo or 'none'}) in {counted(len(self.shards), 'shard')}; "
            f"{adopted}{self.unchanged:,} unchanged, {self.deleted:,} to delete"
        )

    @property
    def nothing_to_do(self) -> bool:
        """Whether the manifest is up to date."""
        return not self.shards and not self.deleted and not self.has_new_columns


def make_plan(workspace: Workspace, job: Job, listing: Listing, workers: Callable[[], int], finished: int = 0) -> Plan:
    """Write the work to `workspace.plan` and `workspace.deleted`, and return its figures.

    Images in folders that could not be listed are neither processed nor deleted. `finished` is the number of images
    that interrupted runs had finished.
    """
    store = workspace.store
    with workspace.scratch() as scratch, sql.connect(scratch) as db:
        outputs, deleted_file, plan_file = (scratch / f"{name}.parquet" for name in ("outputs", "deleted", "plan"))
        list_outputs(workspace.destination, outputs)
        db.execute(f"CREATE VIEW listing AS FROM {sql.parquet(store.local(workspace.listing, scratch))}")
        db.execute(f"CREATE VIEW outputs AS FROM {sql.parquet(outputs)}")
        sql.view(db, "manifest", [local_if_there(store, MANIFEST, scratch)], SCHEMA)
        db.execute(
            _COMPARED_SQL.format(
                forced=job.rules.force,
                by_ctime=job.rules.detect_changes != "mtime",
                by_content=job.rules.detect_changes == "content",
                recipe_id=sql.text(job.recipe_id),
                retry_failed=job.rules.retry_failed,
                retried=", ".join(sql.text(code) for code in sorted(RETRIED_NEXT_RUN)),
                too_many_pixels=sql.text(ErrorCode.DECODE_TOO_MANY_PIXELS),
                max_pixels=job.rules.max_pixels,
            )
        )
        unlisted = below(db, "source_path", listing.skipped.unreadable)
        sql.copy_sealed(db, _DELETED_SQL.format(unlisted=unlisted), deleted_file)
        db.execute(f"CREATE VIEW deleted AS FROM {sql.parquet(deleted_file)}")
        find_moved(db, recipe_id=job.recipe_id, forced=job.rules.force)
        db.execute(_WORK_SQL)
        reasons = dict(db.execute("SELECT reason, count(*) FROM work GROUP BY 1 ORDER BY 1").fetchall())
        shards = tuple(cut_shards(db, plan_file, PLAN_SCHEMA, "source_size", workers))
        [(known, known_failed)] = db.execute(
            "SELECT count(*), count(*) FILTER (status = 'failed') FROM manifest"
        ).fetchall()
        [(deleted,)] = db.execute("SELECT count(*) FROM deleted").fetchall()
        gone, left_out = _count_gone(db, Selection(job.rules))
        columns = open_columns(db, local_if_there(store, workspace.columns, scratch))
        info = read_info(workspace.destination)
        store.put_file(workspace.deleted, deleted_file)
        if shards:
            store.put_file(workspace.plan, plan_file)
    unchanged = listing.images - sum(reasons.values())
    adopted = min(finished, unchanged)
    return Plan(
        shards,
        reasons,
        deleted=deleted,
        gone=gone,
        left_out=left_out,
        adopted=adopted,
        unchanged=unchanged - adopted,
        known=known,
        has_new_columns=info is not None and info.columns != columns.digest,
        known_failed=known_failed,
    )


def _count_gone(db: sql.Connection, selection: Selection) -> tuple[int, int]:
    """Return the number of deleted images that were not moved, and how many of these the rules leave out."""
    gone = left_out = 0
    query = "SELECT source_path FROM deleted WHERE source_path NOT IN (SELECT moved_from FROM moved)"
    for batch in sql.stream(db, query, 65_536):
        gone += batch.num_rows
        left_out += sum(map(selection.leaves_out, batch["source_path"].to_pylist()))
    return gone, left_out


_COMPARED_SQL = """
    CREATE TEMP TABLE compared AS
    FROM (
        SELECT
            l.*, m.attempts AS tried, m.source_sha256, m.output_sha256, m.status,
            CASE
                WHEN m.source_path IS NULL THEN 'new'
                WHEN m.recipe_id <> {recipe_id} THEN 'rebuild'
                WHEN m.status = 'ok' AND o.size IS NULL THEN 'missing'
                WHEN m.status = 'ok' AND o.size <> m.output_bytes THEN 'damaged'
                WHEN {forced} THEN 'forced'
                WHEN m.status = 'failed' AND ({retry_failed} OR m.error_code IN ({retried})) THEN 'retry'
                WHEN m.error_code = {too_many_pixels}
                    AND m.source_width::BIGINT * m.source_height <= {max_pixels} THEN 'retry'
                WHEN (l.source_size, l.source_mtime, l.source_etag)
                    IS DISTINCT FROM (m.source_size, m.source_mtime, m.source_etag) THEN 'changed'
                -- Manifests of schema version 1 have no ctime, and object stores none either.
                WHEN {by_ctime} AND l.source_ctime <> m.source_ctime THEN 'changed'
                WHEN {by_content} THEN 'checked'
            END AS reason
        FROM listing AS l
        LEFT JOIN manifest AS m USING (source_path)
        LEFT JOIN outputs AS o USING (file_name)
    )
    WHERE reason IS NOT NULL
"""
_WORK_SQL = """
    CREATE TEMP VIEW work AS
    SELECT
        source_path, source_size, source_mtime, source_ctime, source_etag,
        CASE WHEN reason = 'retry' THEN tried ELSE 0 END::INTEGER AS attempts,
        CASE WHEN reason IN ('changed', 'checked') THEN source_sha256 END AS known_sha256,
        CASE WHEN reason IN ('changed', 'checked', 'forced') AND status = 'ok' THEN output_sha256 END AS known_output,
        former,
        CASE WHEN former IS NULL THEN reason ELSE 'moved' END AS reason
    FROM compared LEFT JOIN moved USING (source_path)
"""
_DELETED_SQL = """
    SELECT source_path
    FROM (SELECT source_path FROM manifest ANTI JOIN listing USING (source_path)) {unlisted.join}
    WHERE NOT {unlisted.condition}
"""


def cut_shards(
    db: sql.Connection, plan: Path, schema: pa.Schema, size: str, workers: Callable[[], int]
) -> Iterator[int]:
    """Write the work in the order of paths, in row groups of about equal predicted work; yield each one's rows.

    Args:
        db: has the table or view `work`, with a column `source_path`.
        plan: the Parquet file to write; without work, none is written.
        schema: the columns to write.
        size: the column with the number of bytes to read.
        workers: returns how many shards are processed at a time; called only if there is work.
    """
    cost = f"(coalesce({size}, 0) + {IMAGE_OVERHEAD_BYTES})"
    [(total,)] = db.execute(f"SELECT sum({cost})::DOUBLE FROM work").fetchall()
    if total is None:
        return
    target = total / shard_count(total, workers())
    batches = sql.stream(db, f"SELECT {', '.join(schema.names)} FROM work ORDER BY source_path", 65_536)
    tables = (pa.Table.from_batches([batch]).cast(schema) for batch in batches)
    with sealed_writer(plan, schema, compression="zstd") as writer:
        for table in _groups(tables, size, target):
            writer.write_table(table, row_group_size=table.num_rows)
            yield table.num_rows


def shard_count(total_bytes: float, workers: int) -> int:
    """Return the best number of shards for some work, in bytes with `IMAGE_OVERHEAD_BYTES` for each image."""
    shortest, longest = (seconds * BYTES_PER_SECOND for seconds in SHARD_SECONDS)
    wanted = max(workers * SHARDS_PER_WORKER, total_bytes / longest)
    worthwhile = max(total_bytes / shortest, min(workers, 4 * total_bytes / shortest))
    count = max(1, min(int(wanted), int(worthwhile), MAX_SHARDS))
    return count if count <= workers else min(-(-count // workers) * workers, MAX_SHARDS)


def _groups(tables: Iterator[pa.Table], size: str, target: float) -> Iterator[pa.Table]:
    """Regroup rows into groups of about `target` bytes of work; deviations don't add up."""
    done = 0.0
    group: list[pa.Table] = []
    group_number = 0.0
    for table in tables:
        ends = done + np.cumsum(_sizes(table, size) + IMAGE_OVERHEAD_BYTES)
        # An image belongs to the group in which its work begins.
        numbers = np.floor_divide(np.concatenate([[done], ends[:-1]]), target)
        starts = [0, *(np.flatnonzero(np.diff(numbers)) + 1)]
        for start, stop in zip(starts, [*starts[1:], table.num_rows], strict=True):
            if group and numbers[start] != group_number:
                yield pa.concat_tables(group)
                group = []
            group.append(table.slice(start, stop - start))
            group_number = numbers[start]
        done = float(ends[-1])
    yield pa.concat_tables(group)


def _sizes(table: pa.Table, size: str) -> np.ndarray:
    sizes: np.ndarray = table[size].fill_null(0).to_numpy()
    return sizes


def read_shard(workspace: Workspace, number: int, kind: type[R]) -> list[R]:
    """Return a shard's rows, `PlannedImage` or `PlannedOutput`; raise `DamagedError` if the plan is damaged."""
    store, plan = workspace.store, workspace.plan
    try:
        with reading(), store.open(plan) as file:
            reason = damage(file, footer_only=True) or _damage_once(store, plan)
            if reason:
                raise DamagedError(store.where(plan), reason, _NEXT_PLAN)
            with pq.ParquetFile(file, page_checksum_verification=True) as table:
                return from_table(kind, table.read_row_group(number))
    except (pa.ArrowException, OSError, NotFound) as error:
        raise DamagedError(store.where(plan), str(error), _NEXT_PLAN) from error


_NEXT_PLAN = "The next run makes a new plan."


@lru_cache(maxsize=1)
def _damage_once(store: Store, plan: str) -> str | None:
    """Return what is wrong with a run's plan, None if nothing; a worker checks the whole plan only once."""
    return find_damage(store, plan)
