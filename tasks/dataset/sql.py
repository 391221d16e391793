"""DuckDB over Parquet files, in bounded memory; imported when first used, as workers never need it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from darkroom.tasks.dataset.integrity import sealed_writer
from darkroom.tasks.errors import DarkroomError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

T = TypeVar("T")

Connection: TypeAlias = "duckdb.DuckDBPyConnection"

MEMORY_LIMIT = "512MB"

_GLOB = re.compile(r"[*?\[]")


@contextmanager
def connect(scratch: Path) -> Iterator[Connection]:
    """Open an in-memory database that spills to the scratch folder beyond `MEMORY_LIMIT`.

    Raises:
        DarkroomError: a file can't be read or written, or is damaged.
    """
    import duckdb

    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": MEMORY_LIMIT,
        "temp_directory": str(scratch / "spill"),
        "TimeZone": "UTC",
        "autoinstall_known_extensions": False,
    }
    try:
        with duckdb.connect(":memory:", config=config) as connection:
            connection.execute("SET enable_progress_bar = false")
            yield connection
    except duckdb.IOException as error:
        raise DarkroomError(f"A file of the destination can't be read or written: {error}") from error
    except duckdb.InvalidInputException as error:
        raise DarkroomError(f"A Parquet file of the destination is damaged: {error}") from error
    except duckdb.Error as error:
        raise DarkroomError(f"The destination's files can't be worked on: {type(error).__name__}: {error}") from error


@contextmanager
def connect_in_scratch() -> Iterator[tuple[Connection, Path]]:
    """Open a database as `connect` does; yield it and a temporary folder, which is removed when the block ends."""
    with tempfile.TemporaryDirectory() as scratch, connect(Path(scratch)) as db:
        yield db, Path(scratch)


def text(value: object) -> str:
    """Return a value as an SQL string literal, where a statement takes no parameter."""
    return "'" + str(value).replace("'", "''") + "'"


def path(file: Path) -> str:
    """Return the SQL string literal of a file's path, taken literally."""
    return text(_GLOB.sub(r"[\g<0>]", str(file)))


def parquet(*files: Path, numbered: bool = False, by_name: bool = False) -> str:
    """Return the SQL expression of the rows of Parquet files.

    Args:
        files: of the same schema, unless `by_name`.
        numbered: add the column `file_row_number`, from 0 in each file.
        by_name: match columns by name.
    """
    names = ", ".join(map(path, files))
    options = {"hive_partitioning": False, "file_row_number": numbered, "union_by_name": by_name}
    return f"read_parquet([{names}], {', '.join(f'{name} = {value}' for name, value in options.items())})"


def view(connection: Connection, name: str, files: Sequence[Path | None], schema: pa.Schema) -> None:
    """Create or replace a view of the rows of Parquet files that exist (not None); without any, it is empty.

    Its columns are those of the schema; those that files of earlier versions lack are null.
    """
    import pyarrow.parquet as pq

    found, columns, named = [file for file in files if file], set(schema.names), ", ".join(schema.names)
    if found and all(columns <= set(pq.read_schema(file).names) for file in found):
        connection.execute(f"CREATE OR REPLACE VIEW {name} AS SELECT {named} FROM {parquet(*found)}")
        return
    connection.register(f"no_{name}", schema.empty_table())
    rows = f"UNION ALL BY NAME FROM {parquet(*found, by_name=True)}" if found else ""
    connection.execute(f"CREATE OR REPLACE VIEW {name} AS SELECT {named} FROM (FROM no_{name} {rows})")


def stream(connection: Connection, query: str, rows: int) -> Iterator[pa.RecordBatch]:
    """Yield a query's result in batches of at most `rows` rows, in bounded memory."""
    yield from connection.sql(query).to_arrow_reader(rows)


def rows(connection: Connection, query: str) -> list[dict[str, Any]]:
    """Return a small query result as dictionaries by column name."""
    result = connection.execute(query)
    names = [column[0] for column in result.description or []]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def records(connection: Connection, query: str, kind: type[T]) -> list[T]:
    """Return a small query result as dataclasses with a field for each column."""
    return [kind(**row) for row in rows(connection, query)]


def copy_sealed(connection: Connection, query: str, path: Path) -> None:
    """Write a query's result as a Parquet file that `integrity.find_damage` can check."""
    reader = connection.sql(query).to_arrow_reader(65_536)
    with sealed_writer(path, reader.schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(batch)


def copy(connection: Connection, query: str, path: Path) -> None:
    """Write a query's result as a Parquet file."""
    connection.execute(f"COPY ({query}) TO {text(path)} (FORMAT parquet, COMPRESSION zstd)")
