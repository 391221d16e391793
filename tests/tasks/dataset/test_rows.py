"""Rows as dataclasses, and the Arrow schemas that are derived from them."""

from dataclasses import asdict, fields

import pyarrow as pa
import pytest

from darkroom.tasks.dataset.rows import (
    FormerOutput,
    ManifestRow,
    PlannedImage,
    PlannedOutput,
    arrow_schema,
    from_table,
    to_table,
)
from darkroom.tasks.reporting.findings import Finding
from tests.tasks.helpers import NOON, failed_row, row

MANIFEST = """
    source_path: string not null; source_size: int64; source_mtime: timestamp[us, tz=UTC];
    source_ctime: timestamp[us, tz=UTC]; source_etag: string; source_sha256: string; source_format: string;
    source_mode: string; source_width: int32; source_height: int32; orientation: int8; frames: int32;
    file_name: string; format: string; width: int32; height: int32; channels: int8;
    output_bytes: int64; output_sha256: string; scale_x: double; scale_y: double; offset_x: double; offset_y: double;
    status: string not null; error_code: string; error_stage: string; error_message: string;
    warnings: list<item: string>; attempts: int32 not null; read_ms: float; decode_ms: float; resize_ms: float;
    encode_ms: float; write_ms: float; run_id: string not null; shard: int32 not null; worker: string not null;
    recipe_id: string not null; processed_at: timestamp[us, tz=UTC] not null
"""
FORMER = FormerOutput(
    **{field.name: row("old.jpg", warnings=["odd"])[field.name] for field in fields(FormerOutput)},
)


def described(schema):
    return [f"{field.name}: {field.type}{'' if field.nullable else ' not null'}" for field in schema]


def test_the_manifest_has_the_columns_and_types_of_schema_version_2():
    assert described(arrow_schema(ManifestRow)) == " ".join(MANIFEST.split()).split("; ")


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        (
            ManifestRow,
            [ManifestRow(**row("é.jpg", warnings=["a", "b"])), ManifestRow(**failed_row("b", "decode.crash"))],
        ),
        (
            PlannedImage,
            [PlannedImage("a", 1, NOON, NOON, "etag", former=FORMER), PlannedImage("b", None, None, None, None)],
        ),
        (PlannedOutput, [PlannedOutput("a", "images/a", "png", 1, 2, 3, 4, "0f")]),
        (Finding, [Finding("missing", "images/a", None, "gone", present=False)]),
        (ManifestRow, []),
    ],
)
def test_rows_survive_arrow(kind, rows):
    schema = arrow_schema(kind)
    assert schema.names == [field.name for field in fields(kind)]
    table = pa.Table.from_pylist([asdict(each) for each in rows], schema)
    assert from_table(kind, table) == rows
    if kind is not PlannedImage:  # DuckDB writes them
        assert to_table(rows, schema).equals(table)
