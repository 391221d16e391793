"""Sidecars: text files beside the images in tar archives, such as labels and captions, as columns of the manifest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from darkroom.tasks.dataset import sql
from darkroom.tasks.dataset.columns import write_columns
from darkroom.tasks.dataset.layout import MANIFEST, Workspace
from darkroom.tasks.dataset.unlisted import below
from darkroom.tasks.storage.store import Skipped, Source, local_if_there
from darkroom.tasks.storage.tar_members import SIDECARS, TarMembers

PENDING_BYTES = 16 << 20
"""Sidecars of so many bytes are held in memory until they are written."""

ROW_BYTES = 500
"""Roughly what a sidecar takes in memory beside its text."""

_SCHEMA = pa.schema([pa.field("path", pa.string()), pa.field("text", pa.string())])

_KEY, _NAME = (f"regexp_extract({{}}, '(?s)^((?:.*/)?[^./]+)\\.([^/]*)$', {group})" for group in (1, 2))
"""SQL of what the paths of the files of a sample have in common, and of the rest, which names a column."""

_SIDECARS_SQL = f"""
    CREATE TEMP TABLE sidecars AS
    SELECT key, name, text FROM {{found}} JOIN (
        SELECT {_KEY.format("path")} AS key, lower({_NAME.format("path")}) AS name, max(file_row_number) AS last
        FROM {{found}} GROUP BY key, name
    ) ON file_row_number = last
"""
"""Of several sidecars of a sample that have the same name, the last counts."""


@contextmanager
def sidecar_columns(source: Source, listing: Path, workspace: Workspace, skipped: Skipped) -> Iterator[None]:
    """Write the sidecars that a listing within the block comes to, by image, to `workspace.columns`, if there are any.

    Images in archives that are damaged or can't be read keep the values that the manifest has.

    Args:
        source: what is listed; only archives have sidecars.
        listing: the listing's local file, complete when the block ends.
        workspace: of the run.
        skipped: of the listing; counts sidecars that are not UTF-8 as `undecodable_sidecar`.
    """
    if not isinstance(source, TarMembers):
        yield
        return
    with workspace.scratch() as scratch:
        found, columns = scratch / "sidecars.parquet", scratch / "columns.parquet"
        with pq.ParquetWriter(found, _SCHEMA, compression="zstd") as writer:
            texts = _Texts(writer, skipped)
            source.on_sidecar = texts.add
            yield
            texts.write()
        manifest = local_if_there(workspace.store, MANIFEST, scratch) if skipped.unreadable else None
        with sql.connect(scratch) as db:
            db.execute(_SIDECARS_SQL.format(found=sql.parquet(found, numbered=True)))
            db.execute(f"CREATE VIEW listing AS FROM {sql.parquet(listing)}")
            query = _columns_query(db, manifest, skipped.unreadable)
            if query:
                write_columns(db, query, columns)
                workspace.store.put_file(workspace.columns, columns)


class _Texts:
    """Sidecars to write to a file of `_SCHEMA`."""

    def __init__(self, writer: pq.ParquetWriter, skipped: Skipped) -> None:
        self._writer = writer
        self._skipped = skipped
        self._pending: list[dict[str, str]] = []
        self._bytes = 0

    def add(self, path: str, data: bytes) -> None:
        """Add a sidecar, unless it is not UTF-8."""
        try:
            self._pending.append({"path": path, "text": data.decode()})
        except UnicodeDecodeError:
            self._skipped.counts["undecodable_sidecar"] += 1
        self._bytes += len(data) + ROW_BYTES
        if self._bytes > PENDING_BYTES:
            self.write()

    def write(self) -> None:
        """Write what was added."""
        self._writer.write_table(pa.Table.from_pylist(self._pending, _SCHEMA))
        self._pending, self._bytes = [], 0


def _columns_query(db: sql.Connection, manifest: Path | None, unreadable: list[str]) -> str | None:
    """Return the query of the columns by `source_path`; None if there are none.

    Args:
        db: has `sidecars` and `listing`.
        manifest: a local copy of the manifest; None if no value of it is to be kept.
        unreadable: archives, and folders of them, whose values in the manifest are kept.
    """
    found = [name for (name,) in db.execute("SELECT DISTINCT name FROM sidecars").fetchall()]
    kept = [name for name in pq.read_schema(manifest).names if name in SIDECARS] if manifest else []
    values = "".join(f', "{name}".text AS "{name}"' for name in found)
    joins = " ".join(f"LEFT JOIN (FROM sidecars WHERE name = '{name}') AS \"{name}\" USING (key)" for name in found)
    query = f"SELECT source_path{values} FROM (SELECT *, {_KEY.format('source_path')} AS key FROM listing) {joins}"
    if manifest and kept:
        unlisted = below(db, "source_path", unreadable)
        rows = f"FROM {sql.parquet(manifest)} {unlisted.join} WHERE {unlisted.condition}"
        db.execute(f"CREATE TEMP TABLE kept AS SELECT source_path, {_listed(kept)} {rows}")
        query = f"FROM ({query}) ANTI JOIN kept USING (source_path) UNION ALL BY NAME FROM kept"
    names = sorted({*found, *kept})  # in the same order in each run, as it counts as a change of columns
    return f"SELECT source_path, {_listed(names)} FROM ({query})" if names else None


def _listed(names: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
