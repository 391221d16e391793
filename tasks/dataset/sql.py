"""DuckDB over Parquet files, in bounded memory.

It is imported when it is first used: workers never do.
"""

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
    """Open a database without a file of its own, which spills to a folder beyond `MEMORY_LIMIT`.

    Raises:
        DarkroomError: a file can't be read or written, or isn't whole.
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


def parquet(*files: Path, numbered: bool = False, by_name: bool = False) -> str:
    """Return the SQL table of the rows of Parquet files, of one schema unless columns are to be matched by name.

    A `*` in a path is only a `*`, and a folder named `status=ok` makes no column. If they are to be numbered,
    `file_row_number` is a column, from 0 in each file.
    """
    names = ", ".join(text(_GLOB.sub(r"[\g<0>]", str(file))) for file in files)
    options = {"hive_partitioning": False, "file_row_number": numbered, "union_by_name": by_name}
    return f"read_parquet([{names}], {', '.join(f'{name} = {value}' for name, value in options.items())})"


def view(connection: Connection, name: str, files: Sequence[Path], schema: pa.Schema) -> None:
    """Name the rows of Parquet files, again if the name is taken; without a file, they are an empty table.

    Its columns are those of the schema; those that files of earlier versions lack are null.
    """
    import pyarrow.parquet as pq

    columns = set(schema.names)
    named = ", ".join(schema.names)
    if files and all(columns <= set(pq.read_schema(file).names) for file in files):
        connection.execute(f"CREATE OR REPLACE VIEW {name} AS SELECT {named} FROM {parquet(*files)}")
        return
    connection.register(f"no_{name}", schema.empty_table())
    rows = f"UNION ALL BY NAME FROM {parquet(*files, by_name=True)}" if files else ""
    connection.execute(f"CREATE OR REPLACE VIEW {name} AS SELECT {named} FROM (FROM no_{name} {rows})")


def view_if_there(connection: Connection, name: str, file: Path | None, schema: pa.Schema) -> None:
    """Name the rows of a Parquet file as `view` does."""
    view(connection, name, [file] if file else [], schema)


def stream(connection: Connection, query: str, rows: int) -> Iterator[pa.RecordBatch]:
    """Yield a query's result in batches of at most so many rows, without ever holding all of it."""
    yield from connection.sql(query).to_arrow_reader(rows)


def rows(connection: Connection, query: str) -> list[dict[str, Any]]:
    """Return a query's result, which must be small, as rows by column name."""
    result = connection.execute(query)
    names = [column[0] for column in result.description or []]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def records(connection: Connection, query: str, kind: type[T]) -> list[T]:
    """Return a query's result, which must be small, as dataclasses with a field for each column."""
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
