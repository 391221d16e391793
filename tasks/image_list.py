"""Read a list of images: a text, CSV or Parquet file of addresses, with further columns for the manifest."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from darkroom.tasks.dataset import sql
from darkroom.tasks.dataset.columns import write_columns
from darkroom.tasks.dataset.layout import Workspace
from darkroom.tasks.dataset.manifest import SCHEMA
from darkroom.tasks.dataset.unlisted import outermost
from darkroom.tasks.errors import SettingsError
from darkroom.tasks.storage.addresses import Addresses, read_lines
from darkroom.tasks.storage.store import BATCH_ROWS, Skip, Skipped, Version, listed, listing_batch
from darkroom.tasks.storage.store_errors import StorageError, reading_source

ADDRESS_COLUMNS = ("path", "url", "file_name", "filename", "file", "image", "image_path", "image_url")
"""Names of the address column of a list with several columns, in the order of preference."""

RENAMED = "list_"
"""Prefix of further columns that are named like a column of every manifest."""

LOOKS_AT_ONCE = 16
"""Files or URLs that are examined at the same time: on a network, most of the time is waiting."""

_CSV_OPTIONS = """header = true, skip = 0, sample_size = -1, quote = '"', escape = '"', comment = ''"""
"""Without them, DuckDB guesses: it skips lines until it finds a table; `'` may be a quote, and `#` begin a comment."""

_OWN_NAMES = {name.lower() for name in SCHEMA.names}


def list_entries(
    source: Addresses, column: str | None, workspace: Workspace, skip: Skip, skipped: Skipped
) -> Iterator[pa.RecordBatch]:
    """Yield the images of a list as batches of `list_schema`, and write its further columns to `workspace.columns`.

    An address that ends with `/` is a folder or a bucket's prefix, of which all images are listed. Each image is listed
    once, with the columns of its first row. Memory does not grow with the number of images.

    Args:
        source: the list, and the images at its addresses.
        column: name of the column of addresses; None: one of `ADDRESS_COLUMNS`, or the only one.
        workspace: the run's workspace.
        skip: leaves out files of listed folders.
        skipped: counts what is left out; rows of the list as `without_address`, `unusable_address` and `duplicate`.

    Raises:
        SettingsError: the list can't be read, or has no such column.
    """
    with workspace.scratch() as scratch, sql.connect(scratch) as db:
        entries, columns = scratch / "entries.parquet", scratch / "columns.parquet"
        with reading_source():
            file = source.local(scratch)
        rows = _rows(db, source.location, file, column)
        folders = _write_entries(rows, source, entries, skipped)
        write_columns(db, _FIRST_SQL.format(entries=sql.parquet(entries, numbered=True)), columns)
        skipped.counts["duplicate"] += pq.read_metadata(entries).num_rows - pq.read_metadata(columns).num_rows
        skipped.counts += Counter()  # drops the counts of zero
        workspace.store.put_file(workspace.columns, columns)
        db.execute(f"CREATE VIEW entries AS FROM {sql.parquet(workspace.store.local(workspace.columns, scratch))}")
        yield from _examined(db, source)
        for folder in folders:
            yield from _below(db, source, folder, skip, skipped)


_FIRST_SQL = """
    SELECT * EXCLUDE file_row_number FROM {entries}
    WHERE file_row_number IN (SELECT min(file_row_number) FROM {entries} GROUP BY source_path)
"""


@contextmanager
def _readable(location: str) -> Iterator[None]:
    import duckdb

    try:
        yield
    except (OSError, UnicodeDecodeError, duckdb.Error) as error:
        # The lines after an empty one are DuckDB's settings.
        reason = ". ".join(line.rstrip(".") for line in str(error).partition("\n\n")[0].splitlines())
        if "CSV parsing dialect" in reason:
            reason = "it needs the same number of values in each line, closed quotes, and line ends of one kind"
        raise SettingsError(f"source: {location} can't be read as a list of images: {reason}.") from error


def _rows(db: sql.Connection, location: str, file: Path, column: str | None) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a list; the first column is `source_path`, with addresses.

    Args:
        db: reads tables.
        location: that of the list.
        file: a local file that is the list.
        column: the name of the column of addresses that the settings say, if they do.
    """
    with _readable(location):
        if location.endswith(".txt"):
            lines = read_lines(file)
            while batch := list(islice(lines, BATCH_ROWS)):
                yield pa.record_batch({"source_path": batch})
            return
        table, kinds = _table(db, location, file)
        name = _address_column(kinds, location, column)
        further = [
            f"{_quoted(each)} AS {_quoted(RENAMED + each if each.lower() in _OWN_NAMES else each)}"
            for each in kinds
            if each != name or each.lower() not in _OWN_NAMES
        ]
        selected = ", ".join([f"{_quoted(name)} AS source_path", *further])
        yield from sql.stream(db, f"SELECT {selected} FROM {table}", BATCH_ROWS)


def _table(db: sql.Connection, location: str, file: Path) -> tuple[str, dict[str, str]]:
    """Return the SQL of a CSV or Parquet file, and the types of its columns by name."""
    table = f"read_csv({sql.path(file)}, {_CSV_OPTIONS})" if location.endswith(".csv") else sql.parquet(file)
    return table, dict(db.execute(f"SELECT column_name, column_type FROM (DESCRIBE FROM {table})").fetchall())


def check_list(location: str, column: str | None) -> None:
    """Raise `SettingsError` if a local list of images has no column of addresses; see `list_entries`."""
    if not location.endswith(".txt"):
        with sql.connect_in_scratch() as (db, _), _readable(location):
            _address_column(_table(db, location, Path(location))[1], location, column)


def _address_column(kinds: dict[str, str], location: str, column: str | None) -> str:
    """Return the name of a list's column of addresses.

    Args:
        kinds: names and types of its columns.
        location: that of the list.
        column: the name in the settings, if any.
    """
    if len(kinds) == 1 and re.search(r"[,;\t|]", next(iter(kinds))):  # DuckDB has found no separator that fits
        raise SettingsError(
            f"source: the lines of {location} have different numbers of values, or values with separators but without "
            'quotes ("). Mend the list.'
        )
    likely = [column] if column else list(kinds) if len(kinds) == 1 else ADDRESS_COLUMNS
    name = next(filter(kinds.__contains__, likely), None)
    if name is None:
        raise SettingsError(
            f"source: {location} has the columns {', '.join(kinds)}, of which none is called {' or '.join(likely)}. "
            "Give the name of the one that holds paths or URLs as `path_column`."
        )
    if kinds[name] != "VARCHAR":
        raise SettingsError(
            f"source: column {name!r} of {location} holds no text, but {kinds[name]}. Give the name of the one "
            "that holds paths or URLs as `path_column`."
        )
    return name


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _write_entries(rows: Iterator[pa.RecordBatch], source: Addresses, entries: Path, skipped: Skipped) -> list[str]:
    """Write the rows of images, with paths in place of addresses; return the paths of folders, none inside another."""
    first = next(rows, pa.record_batch({"source_path": pa.array([], pa.string())}))
    folders: dict[str, None] = {}
    with pq.ParquetWriter(entries, first.schema, compression="zstd") as writer:
        for batch in chain([first], rows):
            paths = [_to_path(source, address, skipped) for address in batch["source_path"].to_pylist()]
            folders |= dict.fromkeys(path for path in paths if path and path.endswith("/"))
            is_image = pa.array([bool(path) and path not in folders for path in paths], pa.bool_())
            with_paths = batch.set_column(0, first.schema.field(0), pa.array(paths, pa.string()))
            writer.write_batch(with_paths.filter(is_image))
    return outermost(folders)


def _to_path(source: Addresses, address: str | None, skipped: Skipped) -> str | None:
    if not address or not address.strip():
        skipped.counts["without_address"] += 1
        return None
    path = source.to_path(address)
    if path is None:
        skipped.counts["unusable_address"] += 1
    return path


def _examined(db: sql.Connection, source: Addresses) -> Iterator[pa.RecordBatch]:
    """Yield the images of `entries` with their versions, which may be empty until the image is read."""
    with ThreadPoolExecutor(LOOKS_AT_ONCE, "look") as pool:
        for batch in sql.stream(db, "SELECT source_path FROM entries", BATCH_ROWS):
            paths = batch["source_path"].to_pylist()
            yield listing_batch(paths, list(pool.map(partial(_examine, source), paths)))


def _examine(source: Addresses, path: str) -> Version:
    try:
        return source.head(path)
    except StorageError:
        return Version(None, None)


def _below(
    db: sql.Connection, source: Addresses, folder: str, skip: Skip, skipped: Skipped
) -> Iterator[pa.RecordBatch]:
    """Yield the images of a folder that are not listed already."""
    for batch in listed(source, folder, skip=skip, skipped=skipped):
        db.register("found", pa.Table.from_batches([batch]))
        query = f"SELECT {', '.join(batch.schema.names)} FROM found WHERE path NOT IN (SELECT source_path FROM entries)"
        yield from sql.stream(db, query, BATCH_ROWS)
