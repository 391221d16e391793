"""Turn images whose outputs vanished during the run into failures, before the manifest names them.

Another process may empty a destination during a run. So the run checks its outputs once more: each one if they are
few, otherwise by a listing of their folders, which takes 1–2 s for 100,000 outputs on a local disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from darkroom.tasks.dataset import sql
from darkroom.tasks.dataset.layout import IMAGES
from darkroom.tasks.discover import OUTPUTS_SCHEMA, write_outputs
from darkroom.tasks.errors import ErrorCode
from darkroom.tasks.storage.naming import folders_above
from darkroom.tasks.storage.store import Skip, Store
from darkroom.tasks.storage.store_errors import NotFound

FEW_OUTPUTS = 1_000
"""Up to this many outputs are checked one by one: their folders may hold millions."""

FEW_FOLDERS = 10_000
"""With more folders, everything below `images/` is listed, so that their names need not be held in memory."""

_MESSAGE = "the output was written, and then removed or changed by something else before the run ended"

_VANISHED_SQL = """
    CREATE TEMP TABLE vanished AS
    SELECT source_path, file_name FROM journal LEFT JOIN listed USING (file_name)
    WHERE status = 'ok' AND size IS DISTINCT FROM output_bytes
"""
_FAILED_SQL = f"""
    SELECT * EXCLUDE gone REPLACE (
        {{without}},
        if(gone, 'failed', status) AS status,
        if(gone, {sql.text(ErrorCode.WRITE_FAILED)}, error_code) AS error_code,
        if(gone, {sql.text(ErrorCode.WRITE_FAILED.stage)}, error_stage) AS error_stage,
        if(gone, {sql.text(_MESSAGE)}, error_message) AS error_message,
        if(gone, [], warnings) AS warnings
    )
    FROM (SELECT *, source_path IN (SELECT source_path FROM vanished) AS gone FROM journal)
    ORDER BY source_path
"""
_OF_OUTPUTS = (
    *("file_name", "format", "width", "height", "channels", "output_bytes", "output_sha256"),
    *("scale_x", "scale_y", "offset_x", "offset_y"),
)


def find_vanished(db: sql.Connection, store: Store, scratch: Path) -> int:
    """Create the table `vanished` (source_path, file_name) of `journal`'s missing outputs; return their number."""
    made = "FROM journal WHERE status = 'ok'"
    [(count,)] = db.execute(f"SELECT count(*) {made}").fetchall()
    listed = scratch / "made.parquet"
    if count <= FEW_OUTPUTS:
        pq.write_table(_look_at(store, [name for (name,) in db.execute(f"SELECT file_name {made}").fetchall()]), listed)
    else:
        write_outputs(store.list(IMAGES, skip=_other_folders(db, made)), listed)
    db.execute(f"CREATE VIEW listed AS FROM {sql.parquet(listed)}")
    db.execute(_VANISHED_SQL)
    [(vanished,)] = db.execute("SELECT count(*) FROM vanished").fetchall()
    return int(vanished)


def as_failed(db: sql.Connection, rows: int) -> Iterator[pa.RecordBatch]:
    """Yield the rows of `journal`, with those in `vanished` as failures that the next run retries."""
    without = ", ".join(f"if(gone, NULL, {name}) AS {name}" for name in _OF_OUTPUTS)
    yield from sql.stream(db, _FAILED_SQL.format(without=without), rows)


def _look_at(store: Store, names: list[str]) -> pa.Table:
    with ThreadPoolExecutor() as pool:
        sizes = list(pool.map(lambda name: _size(store, name), names))
    found = {name: size for name, size in zip(names, sizes, strict=True) if size is not None}
    return pa.table([list(found), list(found.values())], schema=OUTPUTS_SCHEMA)


def _size(store: Store, name: str) -> int | None:
    try:
        return store.head(name).size
    except NotFound:
        return None


def _other_folders(db: sql.Connection, made: str) -> Skip | None:
    """Return a filter that leaves out folders without outputs of the run; None if too many folders have some."""
    folder = "array_to_string(string_split(file_name, '/')[:-2], '/')"
    found = db.execute(f"SELECT DISTINCT {folder} {made} LIMIT {FEW_FOLDERS + 1}").fetchall()
    if len(found) > FEW_FOLDERS:
        return None
    wanted = {f"{IMAGES}/"}
    for (path,) in found:
        wanted.update(folders_above(f"{path}/"))
    return lambda path: "other" if path.endswith("/") and path not in wanted else None
