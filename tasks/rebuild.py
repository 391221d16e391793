"""Rebuild a lost or damaged manifest from the files of the runs and the outputs."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from darkroom.tasks.dataset import sql
from darkroom.tasks.dataset.layout import MANIFEST, RUNS, WORK, Destination
from darkroom.tasks.dataset.lease import hold_lease
from darkroom.tasks.dataset.manifest import (
    OUTPUT_KEPT,
    SCHEMA,
    footer_of,
    read_record,
    read_whole,
    write_table,
)
from darkroom.tasks.dataset.outputs import has_bytes
from darkroom.tasks.dataset.ranges import ROW_GROUP_ROWS, path_ranges
from darkroom.tasks.dataset.runs import sort_runs
from darkroom.tasks.errors import DamagedError, DarkroomError
from darkroom.tasks.storage.store import Store, exists
from darkroom.tasks.storage.store_errors import writing


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The result of rebuilding a manifest."""

    rows: int
    left_out: int
    """Images whose output is missing or has other bytes than its row says; the next run makes them again."""

    damaged_runs: tuple[str, ...]
    """Run files that could not be used; images that only they recorded are made again, too."""

    kept: str | None
    """Where the damaged manifest was moved to."""


def rebuild_manifest(destination: Destination, run_id: str) -> Rebuilt | None:
    """Rebuild the manifest from the last row of each image in the run files; return None if it is intact.

    A row is used only if its output has the right hash. Images that were deleted since may come back as rows; the next
    run drops them.

    Raises:
        DarkroomError: there is no whole run file, or a file was written by another version of Darkroom.
        SettingsError: this user may not read a file.
        DestinationError: the destination can't be written to.
        LeaseError: a run holds the destination.
    """
    store = destination.store
    with writing(destination.location), hold_lease(destination, run_id) as lease:
        if _is_whole(destination):
            return None
        whole, damaged = _sift(destination)
        counts: Counter[str] = Counter()
        with store.scratch(WORK) as scratch, sql.connect(scratch) as db:
            sql.view(db, "attempts", [store.local(path, scratch) for path in whole], SCHEMA)
            values = footer_of(store, next(path for path in sort_runs(destination).newest_first if path in whole))
            manifest = scratch / MANIFEST
            write_table(manifest, _sound_rows(db, store, values["recipe_id"], counts), values)
            lease.check()
            kept = _set_aside(store)
            store.put_file(MANIFEST, manifest)
        return Rebuilt(
            counts["rows"], counts["left out"], tuple(path.removeprefix(f"{RUNS}/") for path in damaged), kept
        )


def _is_whole(destination: Destination) -> bool:
    try:
        return read_whole(destination) is not None
    except DamagedError:
        return False


def _sift(destination: Destination) -> tuple[list[str], list[str]]:
    """Return the intact run files, and the damaged ones."""
    store = destination.store
    whole: list[str] = []
    damaged: list[str] = []
    for path in destination.run_files():
        try:
            read_record(store, path)
            footer_of(store, path)
            whole.append(path)
        except DamagedError:
            damaged.append(path)
    if not (whole or damaged or exists(store, MANIFEST)):
        adopts = "adopts what an interrupted run has finished, and " if destination.unfinished() else ""
        raise DarkroomError(
            f"{destination.location} has neither a manifest nor files of runs from which to rebuild one. "
            f"Start 'darkroom run': it {adopts}makes what is left."
        )
    if not whole:
        raise DarkroomError(
            f"{store.where(RUNS)} holds no whole file of a run, so that there is nothing to make a manifest from. "
            f"To make all outputs again, move {store.where(RUNS)} and {store.where(MANIFEST)} away and run."
        )
    return whole, damaged


_LAST_SQL = """
    WITH here AS (FROM attempts WHERE {within}),
    made AS (
        FROM here WHERE status <> 'unchanged' AND NOT coalesce(list_contains(warnings, {output_kept}), false)
        QUALIFY row_number() OVER (PARTITION BY source_path ORDER BY processed_at DESC) = 1
    ),
    touched AS (
        FROM here WHERE status = 'unchanged'
        QUALIFY row_number() OVER (PARTITION BY source_path ORDER BY processed_at DESC) = 1
    )
    SELECT made.* REPLACE (
        if(later, touched.source_size, made.source_size) AS source_size,
        if(later, touched.source_mtime, made.source_mtime) AS source_mtime,
        if(later, touched.source_ctime, made.source_ctime) AS source_ctime,
        if(later, touched.source_etag, made.source_etag) AS source_etag
    )
    FROM (
        SELECT made, touched, coalesce(touched.processed_at > made.processed_at, false) AS later
        FROM made LEFT JOIN touched USING (source_path)
    )
    WHERE made.recipe_id = {recipe_id}
    ORDER BY made.source_path
"""


def _sound_rows(db: sql.Connection, store: Store, recipe_id: str, counts: Counter[str]) -> Iterator[pa.RecordBatch]:
    """Yield, in the order of paths, the last row of every image, unless its output has another hash."""
    with ThreadPoolExecutor() as pool:
        for within in path_ranges(db, "SELECT source_path FROM attempts"):
            query = _LAST_SQL.format(within=within, recipe_id=sql.text(recipe_id), output_kept=sql.text(OUTPUT_KEPT))
            for batch in sql.stream(db, query, ROW_GROUP_ROWS):
                names, hashes = batch["file_name"].to_pylist(), batch["output_sha256"].to_pylist()
                sound = list(pool.map(partial(_is_sound, store), names, hashes))
                counts["rows"] += sum(sound)
                counts["left out"] += len(sound) - sum(sound)
                yield batch.filter(pa.array(sound, pa.bool_()))


def _is_sound(store: Store, file_name: str | None, sha256: str | None) -> bool:
    return file_name is None or has_bytes(store, file_name, sha256)  # an image that failed has no output


def _set_aside(store: Store) -> str | None:
    """Move a damaged manifest to an unused name, and return where it is now."""
    if not exists(store, MANIFEST):
        return None
    taken = set(store.children(""))
    kept = next(name for number in itertools.count(1) if (name := f"{MANIFEST}.damaged-{number}") not in taken)
    store.move(MANIFEST, kept)
    return store.where(kept)
