"""The manifest: its schema, and how journals become a new one."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tasks import sql
from tasks.destination import Destination, Workspace
from tasks.errors import DarkroomError
from tasks.recipe import Job, Recipe

SCHEMA_VERSION = 1
ROW_GROUP_ROWS = 122_880

_TIME = pa.timestamp("us", tz="UTC")

SCHEMA = pa.schema(
    [
        pa.field("source_path", pa.string(), nullable=False),
        pa.field("source_size", pa.int64()),
        pa.field("source_mtime", _TIME),
        pa.field("source_etag", pa.string()),
        pa.field("source_sha256", pa.string()),
        pa.field("source_format", pa.string()),
        pa.field("source_mode", pa.string()),
        pa.field("source_width", pa.int32()),
        pa.field("source_height", pa.int32()),
        pa.field("orientation", pa.int8()),
        pa.field("frames", pa.int32()),
        pa.field("file_name", pa.string()),
        pa.field("format", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("channels", pa.int8()),
        pa.field("output_bytes", pa.int64()),
        pa.field("output_sha256", pa.string()),
        pa.field("scale_x", pa.float64()),
        pa.field("scale_y", pa.float64()),
        pa.field("offset_x", pa.float64()),
        pa.field("offset_y", pa.float64()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error_code", pa.string()),
        pa.field("error_stage", pa.string()),
        pa.field("error_message", pa.string()),
        pa.field("warnings", pa.list_(pa.string())),
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("read_ms", pa.float32()),
        pa.field("decode_ms", pa.float32()),
        pa.field("resize_ms", pa.float32()),
        pa.field("encode_ms", pa.float32()),
        pa.field("write_ms", pa.float32()),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("worker", pa.string(), nullable=False),
        pa.field("recipe_id", pa.string(), nullable=False),
        pa.field("processed_at", _TIME, nullable=False),
    ]
)
"""One row per source image. `status` is `ok` or `failed`; in journals and run files also `unchanged`,
for an image whose file was touched but holds the same bytes as before."""

_LOW_CARDINALITY = [
    "source_format",
    "source_mode",
    "format",
    "status",
    "error_code",
    "error_stage",
    "warnings.list.element",
    "run_id",
    "worker",
    "recipe_id",
]


@dataclass(frozen=True, slots=True)
class ManifestInfo:
    """What a manifest says about itself."""

    rows: int
    run_id: str
    recipe: Recipe
    recipe_id: str


def read_info(manifest: Path) -> ManifestInfo | None:
    """Return what a manifest's footer says, or None if there is no manifest.

    Raises:
        DarkroomError: it can't be read, or was written by a newer version of Darkroom.
    """
    try:
        metadata = pq.read_metadata(manifest)
    except FileNotFoundError:
        return None
    except (pa.ArrowInvalid, OSError) as error:
        raise DarkroomError(
            f"{manifest} is damaged and was left as it is: {error}. Move it away to start over; "
            "the outputs are then made again."
        ) from error
    values = {key.decode(): value.decode() for key, value in (metadata.metadata or {}).items()}
    if values.get("schema_version") != str(SCHEMA_VERSION):
        raise DarkroomError(
            f"{manifest} has schema version {values.get('schema_version', 'unknown')}, this is Darkroom for "
            f"version {SCHEMA_VERSION}. Use the version of Darkroom that wrote it, or another destination."
        )
    return ManifestInfo(
        rows=metadata.num_rows,
        run_id=values["run_id"],
        recipe=Recipe.model_validate_json(values["recipe"]),
        recipe_id=values["recipe_id"],
    )


def publish(workspace: Workspace, job: Job, *, delete: bool) -> None:
    """Make what a run's journal holds part of the manifest, and note which outputs that makes obsolete.

    Can be repeated after an interruption anywhere, with the same end.

    Args:
        workspace: the run's working folder; it is not removed.
        job: what the run was to do.
        delete: also drop the images of `workspace.deleted`.
    """
    metadata = {
        "schema_version": str(SCHEMA_VERSION),
        "recipe": json.dumps(job.recipe.model_dump(mode="json")),
        "recipe_id": job.recipe_id,
        "run_id": job.run_id,
    }
    destination = workspace.destination
    with sql.connect(workspace.root) as db:
        _view(db, "base", [destination.manifest] if destination.manifest.exists() else [])
        _view(db, "parts", workspace.journal_parts())
        deleted = [workspace.deleted] if delete and workspace.deleted.exists() else []
        _view(db, "deleted", deleted, "SELECT NULL::VARCHAR AS source_path WHERE false")
        db.execute(_JOURNAL_SQL)
        db.execute(_MERGED_SQL)
        rows = sql.stream(db, "SELECT * FROM journal ORDER BY source_path", ROW_GROUP_ROWS)
        write_table(destination.runs / job.run_file, rows, metadata)
        temporary = destination.manifest.with_name(f".{destination.manifest.name}.tmp")
        write_table(temporary, sql.stream(db, "SELECT * FROM merged", ROW_GROUP_ROWS), metadata)
        db.execute(f"CREATE VIEW published AS FROM {sql.parquet(temporary)}")
        _note_obsolete(db, workspace.obsolete)
    os.replace(temporary, destination.manifest)
    sync_folder(destination.root)


def _note_obsolete(db: sql.Connection, obsolete: Path) -> None:
    """Write which outputs the new manifest no longer names, beside those that an interrupted try had noted."""
    _view(db, "noted", [obsolete] if obsolete.exists() else [], "SELECT NULL::VARCHAR AS file_name WHERE false")
    temporary = obsolete.with_suffix(".tmp")
    sql.copy(
        db,
        "SELECT file_name FROM (SELECT file_name FROM base UNION FROM noted) ANTI JOIN published USING (file_name) "
        "WHERE file_name IS NOT NULL",
        temporary,
    )
    os.replace(temporary, obsolete)


_JOURNAL_SQL = """
    CREATE VIEW journal AS FROM parts
    QUALIFY row_number() OVER (PARTITION BY source_path ORDER BY processed_at DESC, attempts DESC) = 1
"""
_MERGED_SQL = """
    CREATE VIEW merged AS
    SELECT * FROM (
        FROM journal WHERE status <> 'unchanged'
        UNION ALL BY NAME
        FROM base ANTI JOIN journal USING (source_path)
        UNION ALL BY NAME
        SELECT base.* REPLACE (
            j.source_size AS source_size, j.source_mtime AS source_mtime, j.source_etag AS source_etag
        )
        FROM base JOIN journal AS j USING (source_path) WHERE j.status = 'unchanged'
    ) ANTI JOIN deleted USING (source_path)
    ORDER BY source_path
"""


def _view(db: sql.Connection, name: str, files: Iterable[Path], empty: str | None = None) -> None:
    """Name Parquet files of one schema, or an empty table where there are none."""
    files = list(files)
    if files:
        db.execute(f"CREATE VIEW {name} AS FROM {sql.parquet(*files)}")
    elif empty:
        db.execute(f"CREATE VIEW {name} AS {empty}")
    else:
        db.register(name, SCHEMA.empty_table())


def run_file(destination: Destination, run_id: str) -> str:
    """Return a name below `runs/` that is not taken yet: a run that is retried leaves one file a try."""
    tries = itertools.count(2)
    name = f"{run_id}.parquet"
    while (destination.runs / name).exists():
        name = f"{run_id}.{next(tries)}.parquet"
    return name


def write_table(path: Path, batches: Iterator[pa.RecordBatch], metadata: dict[str, str]) -> None:
    """Write rows of `SCHEMA`, sorted by source path, so that the file is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.writing")
    options = {
        "compression": "zstd",
        "use_dictionary": _LOW_CARDINALITY,
        "write_page_index": True,
        "sorting_columns": [pq.SortingColumn(0)],
    }
    with pq.ParquetWriter(temporary, SCHEMA.with_metadata(metadata), **options) as writer:
        for batch in batches:
            writer.write_table(pa.Table.from_batches([batch]).cast(SCHEMA), row_group_size=ROW_GROUP_ROWS)
        writer.add_key_value_metadata(metadata)
    sync_file(temporary)
    os.replace(temporary, path)


def sync_file(path: Path) -> None:
    """Wait until a file's bytes are on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Wait until a folder's names are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
