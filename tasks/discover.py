"""List a source: every image in it, with its size and modification time, as a Parquet file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from darkroom.tasks.dataset.layout import IMAGES, Destination, Workspace
from darkroom.tasks.storage.local_files import is_temporary
from darkroom.tasks.storage.naming import is_image_name
from darkroom.tasks.storage.store import Skipped, Store, list_schema

LISTING_SCHEMA = pa.schema([field.with_name(f"source_{field.name}") for field in list_schema()])
"""What a store lists, under the names that it has in the manifest."""

OUTPUTS_SCHEMA = pa.schema(
    [pa.field("file_name", pa.string(), nullable=False), pa.field("size", pa.int64(), nullable=False)]
)
"""What isn't a regular file has a size of -1, which is no output's."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What a listing of the source came to."""

    images: int
    bytes: int
    skipped: Skipped


def discover(source: Store, workspace: Workspace) -> Listing:
    """Write the listing of all images of a source to `workspace.listing`, in no particular order.

    An image whose status can't be read (a dangling symbolic link, a loop) is listed without size and time. Memory does
    not grow with the number of images.
    """
    skipped = Skipped()
    images = total = 0
    with workspace.scratch() as scratch:
        file = scratch / "listing.parquet"
        with pq.ParquetWriter(file, LISTING_SCHEMA, compression="zstd") as writer:
            for batch in source.list(skip=why_skipped, skipped=skipped):
                writer.write_batch(pa.record_batch(batch.columns, schema=LISTING_SCHEMA))
                images += batch.num_rows
                total += pc.sum(batch["size"]).as_py() or 0
        workspace.store.put_file(workspace.listing, file)
    return Listing(images, total, skipped)


def why_skipped(path: str) -> str | None:
    """Return why a listing leaves out a path, or None if it doesn't; the path of a folder ends with `/`."""
    name = path.removesuffix("/").rpartition("/")[2]
    if name.startswith("."):
        return "hidden"
    return None if path.endswith("/") or is_image_name(name) else "not_image"


def list_outputs(destination: Destination, listing: Path) -> None:
    """Write name and size of every output to a local file, of `OUTPUTS_SCHEMA`.

    What interrupted writes have left is deleted. Only the holder of the destination's lease may call this.
    """
    write_outputs(_without_temporary(destination.store), listing)


def survey_outputs(destination: Destination, listing: Path) -> list[str]:
    """Write what `list_outputs` does, changing nothing: temporary files are listed too.

    Returns:
        The folders, relative to the manifest, that could not be listed: what is below them is unknown, not gone.
    """
    skipped = Skipped()
    write_outputs(destination.store.list(IMAGES, skipped=skipped), listing)
    return skipped.unreadable


def _without_temporary(store: Store) -> Iterator[pa.RecordBatch]:
    left_over: list[str] = []

    def skip(path: str) -> str | None:
        if not is_temporary(path):
            return None
        left_over.append(path)
        return "temporary"

    yield from store.list(IMAGES, skip=skip)
    store.delete(left_over)


def write_outputs(batches: Iterator[pa.RecordBatch], listing: Path) -> None:
    """Write a store's listing to a local file of `OUTPUTS_SCHEMA`."""
    with pq.ParquetWriter(listing, OUTPUTS_SCHEMA, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(pa.record_batch([batch["path"], batch["size"]], schema=OUTPUTS_SCHEMA))
