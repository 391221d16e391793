"""Make a lost or damaged manifest again, from what the runs wrote down and the outputs that are there."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa

from darkroom.tasks.dataset import sql
from darkroom.tasks.dataset.layout import MANIFEST, RUNS, WORK, Destination
from darkroom.tasks.dataset.lease import hold_lease
from darkroom.tasks.dataset.manifest import (
    OUTPUT_KEPT,
    ROW_GROUP_ROWS,
    SCHEMA,
    footer_of,
    read_record,
    read_whole,
    write_table,
)
from darkroom.tasks.dataset.outputs import has_bytes
from darkroom.tasks.dataset.ranges import path_ranges
from darkroom.tasks.dataset.runs import sort_runs
from darkroom.tasks.errors import DamagedError, DarkroomError
from darkroom.tasks.storage.store import Store, exists
from darkroom.tasks.storage.store_errors import writing


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuilt manifest holds."""

    rows: int
    left_out: int
    """Images whose output is missing or not what the runs say; the next run makes them again."""

    damaged_runs: tuple[str, ...]
    """Run files that could not be used; what only they knew is made again, too."""

    kept: str | None
    """Where the damaged manifest was put."""


def rebuild_manifest(destination: Destination, run_id: str) -> Rebuilt | None:
    """Make the manifest again from the last row that the run files have for each image.

    A row is taken only if its output is there, byte for byte. Images that have since gone from the source come back
    as rows only if their output is still there or they had none; the next run drops them. Returns None, and changes
    nothing, if the manifest is whole.

    Raises:
        DarkroomError: there is no whole run file, or a file was written by another version of Darkroom.
        SettingsError: this user may not read a file.
        DestinationError: the destination can't be written to.
        LeaseError: a run is going on.
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
    """Return the run files that are whole, and those that aren't."""
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
            f"{destination.location} holds no manifest that could be damaged, and no file of a run that a lost one "
            f"could be made from. Start 'darkroom run': it {adopts}makes what is left."
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
    """Yield the last row of every image whose output is as the row says, in the order of paths."""
    with ThreadPoolExecutor() as pool:
        for within in path_ranges(db, "SELECT source_path FROM attempts"):
            query = _LAST_SQL.format(within=within, recipe_id=sql.text(recipe_id), output_kept=sql.text(OUTPUT_KEPT))
            for batch in sql.stream(db, query, ROW_GROUP_ROWS):
                names, hashes = batch["file_name"].to_pylist(), batch["output_sha256"].to_pylist()
                sound = list(pool.map(_is_sound, itertools.repeat(store), names, hashes))
                counts["rows"] += sum(sound)
                counts["left out"] += len(sound) - sum(sound)
                yield batch.filter(pa.array(sound, pa.bool_()))


def _is_sound(store: Store, file_name: str | None, sha256: str | None) -> bool:
    """Return whether an output is there, byte for byte; an image that failed has none.

    Raises:
        SettingsError: this user may not read it.
    """
    if file_name is None:
        return True
    return has_bytes(store, file_name, sha256)


def _set_aside(store: Store) -> str | None:
    """Give a damaged manifest a name that is not in use, and return where it is then."""
    if not exists(store, MANIFEST):
        return None
    taken = set(store.children(""))
    kept = next(name for number in itertools.count(1) if (name := f"{MANIFEST}.damaged-{number}") not in taken)
    store.move(MANIFEST, kept)
    return store.where(kept)
