"""List a source: every image in it, with its size and modification time, as a Parquet file."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.filesize import decimal

from darkroom.tasks.dataset.layout import IMAGES, Destination, Workspace
from darkroom.tasks.image_list import list_entries
from darkroom.tasks.reporting.skipped import describe_skipped
from darkroom.tasks.selection import Selection, has_image_suffix
from darkroom.tasks.settings import Rules
from darkroom.tasks.sidecars import sidecar_columns
from darkroom.tasks.storage.addresses import Addresses
from darkroom.tasks.storage.local_files import is_temporary
from darkroom.tasks.storage.store import Skipped, Source, Store, list_schema, listed
from darkroom.tasks.storage.store_errors import StorageError
from darkroom.tasks.wording import counted

LISTING_SCHEMA = pa.schema([field.with_name(f"source_{field.name}") for field in list_schema()])
"""The columns of a store's listing, under their names in the manifest."""

OUTPUTS_SCHEMA = pa.schema(
    [pa.field("file_name", pa.string(), nullable=False), pa.field("size", pa.int64(), nullable=False)]
)
"""Size is -1 for anything but a regular file."""

LOOKS_AT_ONCE = 8
"""Files whose first bytes are read at the same time: on network storage, a read is mostly waiting."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The figures of a listing of the source."""

    images: int
    bytes: int
    skipped: Skipped
    not_images: dict[str, int] = field(default_factory=dict)
    """Number of files left out because they are no images, by suffix, the most frequent first."""

    def describe(self) -> str:
        """Return one line about what was found and what was skipped."""
        skipped = describe_skipped(self.skipped.counts, self.not_images)
        found = f"Found {counted(self.images, 'image')}, {decimal(self.bytes)}."
        return f"{found} Skipped: {skipped}." if skipped else found


def discover(source: Source, workspace: Workspace, rules: Rules) -> Listing:
    """Write the listing of a source's images to `workspace.listing`, in any order and in bounded memory.

    An image whose status can't be read (a dangling symbolic link, a loop) is listed without size and time.
    """
    skipped, selection, limit = Skipped(), Selection(rules), rules.limit
    images = total = 0
    with workspace.scratch() as scratch:
        file = scratch / "listing.parquet"
        with (
            sidecar_columns(source, file, workspace, skipped),
            pq.ParquetWriter(file, LISTING_SCHEMA, compression="zstd") as writer,
        ):
            for batch in _list(source, workspace, rules, selection, skipped):
                found = _without_others(source, batch, selection, skipped) if rules.by_content else batch
                found = found if limit is None else found.slice(0, min(limit - images, found.num_rows))
                writer.write_batch(pa.record_batch(found.columns, schema=LISTING_SCHEMA))
                images += found.num_rows
                total += pc.sum(found["size"]).as_py() or 0
                if images == limit:
                    break
        workspace.store.put_file(workspace.listing, file)
    return Listing(images, total, skipped, dict(selection.not_images.most_common()))


def _list(
    source: Source, workspace: Workspace, rules: Rules, selection: Selection, skipped: Skipped
) -> Iterator[pa.RecordBatch]:
    if isinstance(source, Addresses):
        return list_entries(source, rules.path_column, workspace, selection.skip, skipped)
    return listed(source, skip=selection.skip, skipped=skipped)


def _without_others(store: Source, batch: pa.RecordBatch, selection: Selection, skipped: Skipped) -> pa.RecordBatch:
    """Return a batch without the files that are no images by their suffix or first bytes."""
    paths = batch["path"].to_pylist()
    with ThreadPoolExecutor(LOOKS_AT_ONCE, "look") as pool:
        kept = list(pool.map(partial(_may_be_image, store), paths))
    for path, is_kept in zip(paths, kept, strict=True):
        if not is_kept:
            selection.count_not_image(path)
            skipped.counts["not_image_by_content"] += 1
    return batch.filter(pa.array(kept, pa.bool_()))


def _may_be_image(store: Source, path: str) -> bool:
    """Return whether a file is an image by suffix or content, or can't be read: then it gets a failed row."""
    from darkroom.tasks.imaging.formats.sniff import SNIFFED_BYTES, is_image  # decoders are imported with it

    if has_image_suffix(path):
        return True
    try:
        return is_image(store.get_start(path, SNIFFED_BYTES))
    except StorageError:
        return True


def list_outputs(destination: Destination, listing: Path) -> None:
    """Write the name and size of every output to a local file of `OUTPUTS_SCHEMA`, and delete temporary files.

    Only the holder of the destination's lease may call this.
    """
    write_outputs(_without_temporary(destination.store), listing)


def survey_outputs(destination: Destination, listing: Path) -> list[str]:
    """Write the same as `list_outputs`, but delete nothing, and list temporary files, too.

    Returns:
        The folders, relative to the destination, that could not be listed: their files are unknown, not gone.
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
