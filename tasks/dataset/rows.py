"""The rows of a destination's Parquet files, as dataclasses from which their Arrow schemas are derived.

A field of type `str`, `bool`, `float`, `datetime` or another row becomes a column of the matching Arrow type; others
name their Arrow type with `Annotated`. A field that may be `None` becomes a nullable column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass
from datetime import datetime
from operator import attrgetter
from types import NoneType
from typing import Annotated, Any, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

import pyarrow as pa

R = TypeVar("R")

Int8: TypeAlias = Annotated[int, pa.int8()]
Int32: TypeAlias = Annotated[int, pa.int32()]
Int64: TypeAlias = Annotated[int, pa.int64()]
Float32: TypeAlias = Annotated[float, pa.float32()]
Texts: TypeAlias = Annotated[Sequence[str], pa.list_(pa.string())]

_ARROW_TYPES = {
    str: pa.string(),
    bool: pa.bool_(),
    float: pa.float64(),
    datetime: pa.timestamp("us", tz="UTC"),
}


@dataclass(slots=True, kw_only=True)
class ManifestRow:
    """One source image and its output or failure: a row of manifests, run files and journals.

    `status` is `ok` or `failed`; in journals and run files also `unchanged`, for an image whose file was touched but
    has the same bytes as before. `source_width` and `source_height` are in pixels as stored, before orientation.
    """

    source_path: str
    source_size: Int64 | None = None
    source_mtime: datetime | None = None
    source_ctime: datetime | None = None
    source_etag: str | None = None
    source_sha256: str | None = None
    source_format: str | None = None
    source_mode: str | None = None
    source_width: Int32 | None = None
    source_height: Int32 | None = None
    orientation: Int8 | None = None
    frames: Int32 | None = None
    file_name: str | None = None
    format: str | None = None
    width: Int32 | None = None
    height: Int32 | None = None
    channels: Int8 | None = None
    output_bytes: Int64 | None = None
    output_sha256: str | None = None
    scale_x: float | None = None
    scale_y: float | None = None
    offset_x: float | None = None
    offset_y: float | None = None
    status: str
    error_code: str | None = None
    error_stage: str | None = None
    error_message: str | None = None
    warnings: Texts | None = None
    attempts: Int32
    read_ms: Float32 | None = None
    decode_ms: Float32 | None = None
    resize_ms: Float32 | None = None
    encode_ms: Float32 | None = None
    write_ms: Float32 | None = None
    run_id: str
    shard: Int32
    worker: str
    recipe_id: str
    processed_at: datetime


@dataclass(frozen=True, slots=True)
class FormerOutput:
    """The columns of `ManifestRow` that a moved image keeps."""

    source_sha256: str
    file_name: str
    output_sha256: str
    source_format: str
    source_mode: str
    source_width: Int32
    source_height: Int32
    orientation: Int8
    frames: Int32
    format: str
    width: Int32
    height: Int32
    channels: Int8
    scale_x: float
    scale_y: float
    offset_x: float
    offset_y: float
    warnings: Texts | None


@dataclass(frozen=True, slots=True)
class PlannedImage:
    """An image to process: a row of a run's plan."""

    source_path: str
    source_size: Int64 | None
    source_mtime: datetime | None
    source_ctime: datetime | None
    source_etag: str | None
    attempts: Int32 = 0
    """How often it was tried before."""

    known_sha256: str | None = None
    """If the image's bytes still have this hash, it is unchanged."""

    known_output: str | None = None
    """Hash of the output of the image's former bytes with the same recipe, if any."""

    former: FormerOutput | None = None
    """The output of a gone image that may have been moved to this path."""

    reason: str = "new"


@dataclass(frozen=True, slots=True)
class PlannedOutput:
    """An output to read again, with its columns of the manifest: a row of a verification's plan."""

    source_path: str
    file_name: str
    format: str
    width: Int32
    height: Int32
    channels: Int8
    output_bytes: Int64
    output_sha256: str


def arrow_schema(kind: type) -> pa.Schema:
    """Return the Arrow schema of the rows of a dataclass."""
    return pa.schema([_arrow_field(name, hint) for name, hint in get_type_hints(kind, include_extras=True).items()])


def _arrow_field(name: str, hint: Any) -> pa.Field:
    return pa.field(name, _arrow_type(_without_none(hint)), nullable=NoneType in get_args(hint))


def _arrow_type(hint: Any) -> pa.DataType:
    if get_origin(hint) is Annotated:
        return hint.__metadata__[0]
    if is_dataclass(hint):
        # DuckDB writes every field of a struct as nullable, and Arrow refuses to cast them to fields that are not.
        return pa.struct([field.with_nullable(True) for field in arrow_schema(hint)])  # type: ignore[arg-type]
    return _ARROW_TYPES[hint]


def _without_none(hint: Any) -> Any:
    options = get_args(hint)
    return next(option for option in options if option is not NoneType) if NoneType in options else hint


def to_table(rows: Sequence[Any], schema: pa.Schema) -> pa.Table:
    """Return a table of rows that have an attribute for every column of the schema."""
    columns = [pa.array(list(map(attrgetter(field.name), rows)), field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def from_table(kind: type[R], table: pa.Table) -> list[R]:
    """Return the rows of a table that has a column for every field of a dataclass."""
    hints = get_type_hints(kind)
    columns = [_column(table[name], _without_none(hint)) for name, hint in hints.items()]
    return [kind(**dict(zip(hints, values, strict=True))) for values in zip(*columns, strict=True)]


def _column(column: pa.ChunkedArray, hint: Any) -> list[Any]:
    values: list[Any] = column.to_pylist()
    is_nested = is_dataclass(hint)
    return [hint(**value) if value else None for value in values] if is_nested else values
