"""Make a lost or damaged manifest again, from what the runs wrote down and the outputs that are there."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from darkroom.tasks.dataset import sql
from darkroom.tasks.dataset.layout import Destination
from darkroom.tasks.dataset.lease import hold_lease
from darkroom.tasks.dataset.manifest import OUTPUT_KEPT, ROW_GROUP_ROWS, footer_of, read_record, read_whole, write_table
from darkroom.tasks.dataset.ranges import path_ranges
from darkroom.tasks.errors import DamagedError, DarkroomError, ErrorCode, ImageError, SettingsError
from darkroom.tasks.storage.durable import replace_durably, writing
from darkroom.tasks.storage.local import LocalFolder


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuilt manifest holds."""

    rows: int
    left_out: int
    """Images whose output is missing or not what the runs say; the next run makes them again."""

    damaged_runs: tuple[str, ...]
    """Run files that could not be used; what only they knew is made again, too."""

    kept: Path | None
    """Where the damaged manifest was put."""


def rebuild_manifest(destination: Destination, run_id: str) -> Rebuilt | None:
    """Make the manifest again from the last that the run files say of each image.

    A row is taken only if its output is there, byte for byte. Images that have since gone from the source come back
    as rows only if their output is still there or they had none; the next run drops them. Returns None, and changes
    nothing, if the manifest is whole.

    Raises:
        DarkroomError: there is no whole run file, or a file was written by another version of Darkroom.
        SettingsError: this user may not read a file.
        DestinationError: the destination can't be written to.
        LeaseError: a run is going on.
    """
    with writing(destination.root), hold_lease(destination, run_id) as lease:
        if _is_whole(destination.manifest):
            return None
        whole, damaged = _sift(destination)
        scratch = destination.work / "rebuild"
        scratch.mkdir(parents=True, exist_ok=True)
        # Written beside the manifest, so that it can take its place.
        temporary = destination.root / ".manifest.parquet.rebuilt"
        counts: Counter[str] = Counter()
        with sql.connect(scratch) as db:
            db.execute(f"CREATE VIEW told AS FROM {sql.parquet(*whole)}")
            values = footer_of(_newest(db, whole))
            write_table(temporary, _sound_rows(db, destination, values["recipe_id"], counts), values)
        shutil.rmtree(scratch)
        lease.check()
        kept = _set_aside(destination.manifest)
        replace_durably(temporary, destination.manifest)
        return Rebuilt(counts["rows"], counts["left out"], tuple(file.name for file in damaged), kept)


def _is_whole(manifest: Path) -> bool:
    try:
        return read_whole(manifest) is not None
    except DamagedError:
        return False


def _sift(destination: Destination) -> tuple[list[Path], list[Path]]:
    """Return the run files that are whole, and those that aren't."""
    whole: list[Path] = []
    damaged: list[Path] = []
    for file in destination.run_files():
        try:
            read_record(file)
            footer_of(file)
            whole.append(file)
        except DamagedError:
            damaged.append(file)
    if not (whole or damaged or destination.manifest.exists()):
        adopts = "adopts what an interrupted run has finished, and " if destination.unfinished() else ""
        raise DarkroomError(
            f"{destination.root} holds no manifest that could be damaged, and no file of a run that a lost one could "
            f"be made from. Start 'darkroom run': it {adopts}makes what is left."
        )
    if not whole:
        raise DarkroomError(
            f"{destination.runs} holds no whole file of a run, so that there is nothing to make a manifest from. "
            f"To make all outputs again, move {destination.runs} and {destination.manifest} away and run."
        )
    return whole, damaged


def _newest(db: sql.Connection, files: list[Path]) -> Path:
    """Return the file of the run that worked on an image last: files from a backup don't have their own times."""
    [(run_id,)] = db.execute("SELECT arg_max(run_id, processed_at) FROM told").fetchall()
    return max(files, key=lambda file: (footer_of(file)["run_id"] == run_id, file.name))


_LAST_SQL = """
    WITH here AS (FROM told WHERE {within}),
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
        if(later, touched.source_etag, made.source_etag) AS source_etag
    )
    FROM (
        SELECT made, touched, coalesce(touched.processed_at > made.processed_at, false) AS later
        FROM made LEFT JOIN touched USING (source_path)
    )
    WHERE made.recipe_id = {recipe_id}
    ORDER BY made.source_path
"""


def _sound_rows(
    db: sql.Connection, destination: Destination, recipe_id: str, counts: Counter[str]
) -> Iterator[pa.RecordBatch]:
    """Yield the last row of every image whose output is as the row says, in the order of paths."""
    outputs = LocalFolder(os.fsencode(destination.root))
    with ThreadPoolExecutor() as pool:
        for within in path_ranges(db, "SELECT source_path FROM told"):
            query = _LAST_SQL.format(within=within, recipe_id=sql.text(recipe_id), output_kept=sql.text(OUTPUT_KEPT))
            for batch in sql.stream(db, query, ROW_GROUP_ROWS):
                names, hashes = batch["file_name"].to_pylist(), batch["output_sha256"].to_pylist()
                sound = list(pool.map(_is_sound, itertools.repeat(outputs), names, hashes))
                counts["rows"] += sum(sound)
                counts["left out"] += len(sound) - sum(sound)
                yield batch.filter(pa.array(sound, pa.bool_()))


def _is_sound(outputs: LocalFolder, file_name: str | None, sha256: str | None) -> bool:
    """Say whether an output is there, byte for byte; an image that failed has none.

    Raises:
        SettingsError: this user may not look.
    """
    if file_name is None:
        return True
    try:
        data = outputs.read(file_name)
    except ImageError as error:
        if error.code == ErrorCode.SOURCE_DENIED:
            path = os.fsdecode(outputs.locate(file_name))
            raise SettingsError(f"{path} can't be read. Grant this user permission to read all outputs.") from error
        return False
    return hashlib.sha256(data).hexdigest() == sha256


def _set_aside(manifest: Path) -> Path | None:
    """Give a damaged manifest a name under which it is in nobody's way."""
    if not manifest.exists():
        return None
    names = (manifest.with_name(f"{manifest.name}.damaged-{number}") for number in itertools.count(1))
    kept = next(path for path in names if not path.exists())
    os.replace(manifest, kept)
    return kept
