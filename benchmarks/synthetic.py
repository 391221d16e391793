"""Tables and trees of millions of images that are never processed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from darkroom.tasks.dataset.integrity import sealed_writer
from darkroom.tasks.dataset.layout import Workspace, open_destination
from darkroom.tasks.dataset.manifest import SCHEMA
from darkroom.tasks.discover import LISTING_SCHEMA, OUTPUTS_SCHEMA, discover
from darkroom.tasks.plan import make_plan
from darkroom.tasks.publish import publish
from darkroom.tasks.recover import close_workspace
from darkroom.tasks.settings import Job, Recipe, Rules
from darkroom.tasks.storage.locations import open_source
from darkroom.tasks.storage.naming import output_name
from data.photos import encoded, photo

BATCH_ROWS = 65_536
FILES_PER_FOLDER = 1_000
LINKS_PER_FILE = 30_000
"""File systems limit how many names a file may have; ext4 to 65,000."""

OUTPUT_BYTES = 70_000
_BEGIN_US = 1_700_000_000_000_000


@dataclass(frozen=True, slots=True)
class Night:
    """What a source holds one night: images `first` to `rows + new`, in no order, some of them changed."""

    rows: int
    first: int = 0
    changed: int = 0
    new: int = 0

    def write(self, listing: Path) -> None:
        """Write the listing, as `darkroom.tasks.discover` does."""
        rng = np.random.default_rng(0)
        starts = np.arange(self.first, self.rows + self.new, BATCH_ROWS)
        with pq.ParquetWriter(listing, LISTING_SCHEMA, compression="zstd") as writer:
            for start in rng.permutation(starts):
                writer.write_batch(self._batch(np.arange(start, min(start + BATCH_ROWS, self.rows + self.new))))

    def _batch(self, numbers: np.ndarray) -> pa.RecordBatch:
        newer = numbers >= self.rows - self.changed
        times = _BEGIN_US + numbers * 1_000 + newer * np.where(numbers < self.rows, 1_000_000, 0)
        columns = [
            pa.array([f"{number // FILES_PER_FOLDER:06}/photo {number:09}.jpg" for number in numbers.tolist()]),
            pa.array(50_000 + numbers * 7919 % 120_000),
            *[pa.array(times).cast(pa.timestamp("us", tz="UTC"))] * 2,
            pa.nulls(len(numbers), pa.string()),
        ]
        return pa.record_batch(columns, schema=LISTING_SCHEMA)


def job(run_id: str, destination: Path) -> Job:
    """Return a run's job with the default settings."""
    recipe = Recipe()
    return Job(
        run_id=run_id,
        source="/source",
        destination=str(destination),
        recipe=recipe,
        recipe_id=recipe.recipe_id,
        rules=Rules(),
        run_file=f"{run_id}.parquet",
    )


def write_outputs(destination: Path) -> None:
    """Write the table of the outputs that a destination would hold."""
    manifest = destination / "manifest.parquet"
    with pq.ParquetWriter(destination / "outputs.parquet", OUTPUTS_SCHEMA, compression="zstd") as writer:
        if manifest.exists():
            for batch in pq.ParquetFile(manifest).iter_batches(BATCH_ROWS, columns=["file_name", "output_bytes"]):
                writer.write_batch(pa.record_batch(batch.columns, schema=OUTPUTS_SCHEMA))


def write_made(workspace: Workspace, _batches: object, listing: Path) -> None:
    """Write the table of the outputs that a journal's images would have."""
    with pq.ParquetWriter(listing, OUTPUTS_SCHEMA, compression="zstd") as writer:
        for part in workspace.journal_parts():
            rows = pq.read_table(workspace.store.where(part), columns=["file_name", "output_bytes"])
            writer.write_table(pa.table(rows.columns, schema=OUTPUTS_SCHEMA))


def write_journal(workspace: Workspace, output_bytes: int = OUTPUT_BYTES) -> int:
    """Write the journal of all shards of a plan, as if each image had been made; return the number of parts."""
    run = job(workspace.run_id, Path(workspace.store.location))
    plan = pq.ParquetFile(workspace.store.where(workspace.plan))
    parts: int = plan.num_row_groups
    journal = Path(workspace.store.where(workspace.journal))
    journal.mkdir(exist_ok=True)
    for shard in range(parts):
        rows = _finished(plan.read_row_group(shard), run, shard, output_bytes)
        with sealed_writer(journal / f"{shard:06d}-001-1-1-000000.parquet", rows.schema) as writer:
            writer.write_table(rows)
    return parts


def _finished(planned: pa.Table, run: Job, shard: int, output_bytes: int) -> pa.Table:
    """Return journal rows for planned images; hashes differ from row to row, as real ones do."""
    count = planned.num_rows
    rng = np.random.default_rng(shard)
    paths = planned["source_path"].to_pylist()
    times = rng.uniform(0.1, 9, (5, count)).astype(np.float32)
    columns = {
        name: planned[name] for name in ("source_path", "source_size", "source_mtime", "source_ctime", "source_etag")
    }
    columns |= {
        "source_sha256": _hashes(rng, count),
        "output_sha256": _hashes(rng, count),
        "file_name": [f"images/{output_name(path, run.recipe.format)}" for path in paths],
        "warnings": [[]] * count,
        "attempts": pc.add(planned["attempts"], 1),
        **dict(zip(("read_ms", "decode_ms", "resize_ms", "encode_ms", "write_ms"), times, strict=True)),
    }
    same = {
        "source_format": "jpeg",
        "source_mode": "RGB",
        "source_width": 500,
        "source_height": 375,
        "orientation": 1,
        "frames": 1,
        "format": run.recipe.format,
        "width": run.recipe.width,
        "height": run.recipe.height,
        "channels": 3,
        "output_bytes": output_bytes,
        "scale_x": 1.2,
        "scale_y": 1.6,
        "offset_x": 0.0,
        "offset_y": 0.0,
        "status": "ok",
        "run_id": run.run_id,
        "shard": shard,
        "worker": f"host/{1000 + shard % 64}",
        "recipe_id": run.recipe_id,
        "processed_at": datetime.now(UTC),
    }
    columns |= {name: pa.repeat(pa.scalar(value, SCHEMA.field(name).type), count) for name, value in same.items()}
    arrays = [columns.get(name, pa.nulls(count, SCHEMA.field(name).type)) for name in SCHEMA.names]
    return pa.table(arrays, names=SCHEMA.names).cast(SCHEMA)


def _hashes(rng: np.random.Generator, count: int) -> list[str]:
    text = rng.bytes(32 * count).hex()
    return [text[64 * row : 64 * row + 64] for row in range(count)]


def write_tree(folder: Path, files: int) -> None:
    """Write a tree of tiny JPEGs: links to a few files, a thousand to a folder."""
    content = encoded(Image.fromarray(photo(16, 12, 0)), "JPEG")
    for number, name in enumerate(_names(files)):
        path = folder / name
        if number % FILES_PER_FOLDER == 0:
            path.parent.mkdir(parents=True)
        if number % LINKS_PER_FILE == 0:
            original = path
            path.write_bytes(content)
        else:
            os.link(original, path)


def write_prepared(source: Path, destination: Path) -> None:
    """Write a destination with an output for each image of a source, without processing any."""
    place = open_destination(str(destination))
    place.store.create()
    workspace = place.workspace("first")
    run = job("first", destination)
    workspace.begin(run)
    listing = discover(open_source(str(source), Rules()), workspace, Rules())
    make_plan(workspace, run, listing, lambda: 2)
    write_journal(workspace, output_bytes=listing.bytes // listing.images)
    write_tree(destination / "images", listing.images)  # first, because publishing checks that they exist
    publish(workspace, run, ended=True)
    close_workspace(workspace)


def _names(files: int) -> Iterator[str]:
    for number in range(files):
        yield f"{number // 100_000:03}/{number // FILES_PER_FOLDER:06}/photo {number:09}.jpg"
