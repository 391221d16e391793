"""The manifest and run files: schema, metadata and writing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from darkroom.tasks.dataset.columns import COLUMNS
from darkroom.tasks.dataset.integrity import check_whole, damage, sealed_writer
from darkroom.tasks.dataset.layout import MANIFEST, RUNS, Destination
from darkroom.tasks.dataset.rows import ManifestRow, arrow_schema
from darkroom.tasks.errors import DamagedError, DarkroomError, InvalidSettingError
from darkroom.tasks.settings import Job, Recipe
from darkroom.tasks.storage.store import Store, unused_name
from darkroom.tasks.storage.store_errors import NotFound, reading

SCHEMA_VERSION = 2
READABLE_VERSIONS = {"1", str(SCHEMA_VERSION)}
"""Version 1 has no `source_ctime`."""

OUTPUT_KEPT = "output_kept"
"""Warning in run files: the failure may pass, so that the manifest keeps the image's former row and output."""

SCHEMA = arrow_schema(ManifestRow)
"""One row per source image, sorted by `source_path`."""

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

_FOOTER_NAMES = ("schema_version", "recipe", "recipe_id", "run_id", "run_file")


@dataclass(frozen=True, slots=True)
class ManifestInfo:
    """The metadata of a manifest."""

    rows: int
    run_id: str
    run_file: str
    """Name in `runs/` of the file of the run that published the manifest."""

    recipe: Recipe
    recipe_id: str
    columns: str
    """The digest of its further columns."""


class RunRecord(BaseModel):
    """The metadata in a run's file."""

    model_config = ConfigDict(frozen=True)

    started_at: datetime | None = None
    seconds: float | None = Field(None, description="From its start until it published; null if it was interrupted.")
    work_seconds: float | None = Field(None, description="Of them, those in which shards ran; null if interrupted.")
    deleted: int = Field(0, description="Images that it removed because they are gone from the source.")


def read_info(destination: Destination) -> ManifestInfo | None:
    """Return the metadata in a manifest's footer, None if there is no manifest; `read_whole` checks the rows, too.

    Raises:
        SettingsError: this user may not read it.
        DamagedError: its footer is damaged.
        DarkroomError: it was written by another version of Darkroom.
    """
    return _read_info(destination.store, MANIFEST, rebuild_remedy(destination))


def read_whole(destination: Destination) -> ManifestInfo | None:
    """Check a whole manifest for damage, and return its metadata; None if there is no manifest.

    Raises:
        SettingsError: this user may not read it.
        DamagedError: it is damaged.
        DarkroomError: it was written by another version of Darkroom.
    """
    check_whole(destination.store, MANIFEST, rebuild_remedy(destination))
    return read_info(destination)


def rebuild_remedy(destination: Destination) -> str:
    """Return the remedy for a lost or damaged manifest."""
    return (
        f"It was left as it is. 'darkroom rebuild-manifest {destination.location}' makes it again from the outputs and "
        "the files of the runs."
    )


def _read_info(store: Store, path: str, remedy: str) -> ManifestInfo | None:
    footer = _read_footer(store, path, remedy)
    if footer is None:
        return None
    rows, values = footer
    try:
        return ManifestInfo(
            rows=rows,
            run_id=values["run_id"],
            run_file=values.get("run_file", ""),
            recipe=Recipe.model_validate_json(values["recipe"]),
            recipe_id=values["recipe_id"],
            columns=values.get(COLUMNS, ""),
        )
    except (KeyError, ValidationError, InvalidSettingError) as error:
        raise DamagedError(store.where(path), f"its metadata is wrong: {error}", remedy) from error


def read_record(store: Store, path: str, *, whole: bool = True) -> tuple[str, RunRecord] | None:
    """Return a run's id and record from its file; None if there is no such file.

    Args:
        store: the destination's store.
        path: the file's path.
        whole: check the whole file for damage, not only its footer.

    Raises:
        SettingsError: this user may not read it.
        DamagedError: it is damaged.
        DarkroomError: it was written by another version of Darkroom.
    """
    if whole:
        check_whole(store, path, WITHOUT_A_RUN_FILE)
    footer = _read_footer(store, path, WITHOUT_A_RUN_FILE)
    if footer is None:
        return None
    _, values = footer
    try:
        return values["run_id"], RunRecord.model_validate_json(values.get("run", "{}"))
    except (KeyError, ValidationError) as error:
        reason = f"the record of its run is wrong: {error}"
        raise DamagedError(store.where(path), reason, WITHOUT_A_RUN_FILE) from error


WITHOUT_A_RUN_FILE = "Runs go on without it; only the history and a rebuilt manifest lack its images."


def _read_footer(store: Store, path: str, remedy: str) -> tuple[int, dict[str, str]] | None:
    try:
        with reading(), store.open(path) as file:
            if reason := damage(file, footer_only=True):
                raise DamagedError(store.where(path), reason, remedy)
            file.seek(0)
            metadata = pq.read_metadata(file)
        values = {key.decode(): value.decode() for key, value in (metadata.metadata or {}).items()}
    except NotFound:
        return None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedError(store.where(path), str(error), remedy) from error
    if values.get("schema_version") not in READABLE_VERSIONS:
        raise DarkroomError(
            f"{store.where(path)} has schema version {values.get('schema_version', 'unknown')}, but Darkroom "
            f"reads versions up to {SCHEMA_VERSION}. Use the version of Darkroom that wrote it, or another destination."
        )
    return metadata.num_rows, values


def run_file(destination: Destination, run_id: str) -> str:
    """Return an unused name in `runs/`: each try of a run leaves a file.

    Raises:
        SettingsError: this user may not list `runs/`.
    """
    with reading():
        return unused_name(destination.store, RUNS, run_id, ".parquet")


def footer(job: Job) -> dict[str, str]:
    """Return the key-value metadata of a job's manifest."""
    return {
        "schema_version": str(SCHEMA_VERSION),
        "recipe": json.dumps(job.recipe.model_dump(mode="json")),
        "recipe_id": job.recipe_id,
        "run_id": job.run_id,
        "run_file": job.run_file,
    }


def footer_of(store: Store, path: str) -> dict[str, str]:
    """Return the manifest metadata for a manifest that is rebuilt from a run's file.

    Raises:
        DamagedError: its footer is damaged.
        DarkroomError: it was written by another version of Darkroom.
    """
    _read_info(store, path, WITHOUT_A_RUN_FILE)
    _, values = _read_footer(store, path, WITHOUT_A_RUN_FILE) or (None, {})
    return {name: values[name] for name in _FOOTER_NAMES if name in values} | {"schema_version": str(SCHEMA_VERSION)}


def write_table(
    file: Path, batches: Iterator[pa.RecordBatch], metadata: dict[str, str], further: Iterable[pa.Field] = ()
) -> None:
    """Write rows of `SCHEMA`, sorted by source path, to a local file.

    Args:
        file: the file; it is not whole before the end.
        batches: the rows; each batch becomes a row group.
        metadata: the file's key-value metadata.
        further: columns of the rows beyond those of `SCHEMA`.
    """
    schema = pa.schema([*SCHEMA, *further])
    options = {
        "compression": "zstd",
        "use_dictionary": _LOW_CARDINALITY,
        "write_page_index": True,
        "sorting_columns": [pq.SortingColumn(0)],
    }
    with sealed_writer(file, schema.with_metadata(metadata), **options) as writer:
        for batch in batches:
            writer.write_table(pa.Table.from_batches([batch]).cast(schema), row_group_size=max(1, batch.num_rows))
        writer.add_key_value_metadata(metadata)
