"""Further columns of the manifest, from a list of images or the sidecars of archives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from darkroom.tasks.dataset import sql
from darkroom.tasks.dataset.integrity import sealed_writer
from darkroom.tasks.dataset.ranges import path_ranges
from darkroom.tasks.storage.store import BATCH_ROWS

COLUMNS = "columns"
"""The key of the digest of further columns in the metadata of a manifest."""

FURTHER_ROWS_SQL = """
    SELECT source_path FROM (
        SELECT source_path, unnest(range(strlen(file_name::VARCHAR) // 1_000)) FROM columns AS file_name
    )
"""
"""Selects the path of a row of the view `columns` once for each 1,000 bytes of it: about those of a usual row.

No further column is named like the alias of the row, as `file_name` is a column of every manifest.
"""


@dataclass(frozen=True, slots=True)
class Columns:
    """Further columns: their fields, and a digest of their values; empty if there are none."""

    schema: pa.Schema
    digest: str

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata of a manifest about these columns."""
        return {COLUMNS: self.digest} if self.digest else {}


def open_columns(db: sql.Connection, file: Path | None) -> Columns:
    """Create the view `columns` of the further columns and their `source_path`.

    Args:
        db: the database to create it in.
        file: a Parquet file with them; None if there are none.
    """
    if file is None:
        db.execute("CREATE VIEW columns AS SELECT '' AS source_path LIMIT 0")
        return Columns(pa.schema([]), "")
    db.execute(f"CREATE VIEW columns AS FROM {sql.parquet(file)}")
    fields = [field for field in pq.read_schema(file) if field.name != "source_path"]
    if not fields:
        return Columns(pa.schema([]), "")
    [(digest,)] = db.execute("SELECT sum(hash(file_name)) FROM columns AS file_name").fetchall()
    return Columns(pa.schema(fields), f"{', '.join(map(str, fields))}: {digest or 0}")


def write_columns(db: sql.Connection, query: str, file: Path) -> None:
    """Write further columns to a file that `integrity.find_damage` can check, sorted by source path.

    Of rows with long values, a range of paths at a time is sorted: DuckDB can't sort those that exceed its memory.
    Others are sorted at once, as each range takes a pass over all rows.

    Args:
        db: gets the view `columns` of the query's rows.
        query: selects `source_path`, different in each row, and the further columns.
        file: the Parquet file to write.
    """
    db.execute(f"CREATE VIEW columns AS {query}")
    schema = db.sql("FROM columns LIMIT 0").to_arrow_reader().schema
    with sealed_writer(file, schema, compression="zstd") as writer:
        for within in path_ranges(db, FURTHER_ROWS_SQL):
            for batch in sql.stream(db, f"FROM columns WHERE {within} ORDER BY source_path", BATCH_ROWS):
                writer.write_batch(batch)
