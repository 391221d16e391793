"""Make two contact sheets of a run: a sample of its outputs, and one of its failed images."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from darkroom.tasks.dataset import sql
from darkroom.tasks.dataset.layout import RUNS, Destination
from darkroom.tasks.errors import ErrorCode, ImageError
from darkroom.tasks.imaging import TILE_SIDE, Sheet, Tile
from darkroom.tasks.settings import Job, Recipe
from darkroom.tasks.storage.locations import open_source
from darkroom.tasks.storage.store import Source, Store
from darkroom.tasks.storage.store_errors import NotFound, StorageError
from darkroom.tasks.worker.codec import Codec
from darkroom.tasks.worker.orders import Orders
from darkroom.tasks.worker.shared_batch import Operation

OUTPUTS_SHOWN = 24
FAILURES_SHOWN = 12

MAX_BYTES = 90_000
"""Upper limit on a contact sheet: Prefect's database stores it as text, which is a third longer."""

MAX_OUTPUT_BYTES = 64 << 20
MAX_PIXELS = 60_000_000
"""Upper limit on the pixels of the sample, about one second of work: fewer outputs are shown if they are larger."""

MAX_SOURCE_BYTES = 64 << 20
MAX_PREVIEWED_PIXELS = 50_000_000
PREVIEW_SECONDS = 3.0
PREVIEWS_SECONDS = 6.0
"""Time limits on decoding one failed image, and all of them."""

PREVIEW_BYTES = 1 << 30
"""Memory limit on decoding a failed image."""

SHEET_SECONDS = 60.0
"""Time limit on decoding one output, and on drawing a contact sheet."""

PREVIEWED = frozenset(
    {
        ErrorCode.DECODE_TRUNCATED,
        ErrorCode.DECODE_CORRUPT,
        ErrorCode.ENCODE_FAILED,
        ErrorCode.WRITE_NO_SPACE,
        ErrorCode.WRITE_DENIED,
        ErrorCode.WRITE_PATH_TOO_LONG,
        ErrorCode.WRITE_FAILED,
    }
)
"""Failures whose images may have readable pixels; not those that crashed a decoder or exceeded its limits."""


@dataclass(frozen=True, slots=True)
class ContactSheet:
    """A contact sheet of several images: a JPEG of at most `MAX_BYTES`."""

    jpeg: bytes
    images: int


@dataclass(frozen=True, slots=True)
class ContactSheets:
    """A run's contact sheets; None if there is nothing to show."""

    made: ContactSheet | None = None
    failed: ContactSheet | None = None


@dataclass(frozen=True, slots=True)
class _Made:
    """A row of the run file with an output; width and height of the output in pixels."""

    source_path: str
    file_name: str
    width: int
    height: int
    output_sha256: str


@dataclass(frozen=True, slots=True)
class _Failed:
    """A row of the run file that failed."""

    source_path: str
    error_code: str


def make_contact_sheets(destination: Destination, job: Job) -> ContactSheets:
    """Return contact sheets of a published run: outputs evenly spaced by path, and failed images of all error codes.

    An output that is missing or damaged has a tile without a picture.
    """
    with sql.connect_in_scratch() as (db, scratch):
        run_file = destination.store.local(f"{RUNS}/{job.run_file}", scratch)
        db.execute(f"CREATE VIEW run AS FROM {sql.parquet(run_file, numbered=True)}")
        made, failed = _sample(db), _sample_of_failures(db)
    with closing(Codec()) as codec:
        return ContactSheets(
            _draw(codec, _output_tiles(codec, destination.store, job, made)),
            _draw(codec, _failure_tiles(codec, job, failed)),
        )


def _draw(codec: Codec, tiles: Sequence[Tile]) -> ContactSheet | None:
    if not tiles:
        return None
    sheet = Sheet(tiles=tuple(tiles), max_bytes=MAX_BYTES).model_dump_json().encode()
    orders = Orders(max_pixels=MAX_PIXELS, max_image_seconds=SHEET_SECONDS)
    [drawn] = codec.run(Operation.SHEET, orders, [sheet])
    if isinstance(drawn, ImageError):
        raise drawn
    assert isinstance(drawn, bytes)  # noqa: S101 - the result of Operation.SHEET
    return ContactSheet(drawn, len(tiles))


_SAMPLE_SQL = """
    SELECT source_path, file_name, width, height, output_sha256 FROM run
    WHERE file_row_number IN (
        SELECT file_row_number FROM (
            SELECT file_row_number, row_number() OVER (ORDER BY file_row_number) - 1 AS rank
            FROM run WHERE status = 'ok'
        )
        WHERE rank IN ({ranks})
    )
    ORDER BY source_path
"""


def _sample(db: sql.Connection) -> list[_Made]:
    """Return at most `OUTPUTS_SHOWN` images with an output, evenly spaced in the order of paths."""
    [(images, pixels)] = db.execute(
        "SELECT count(*), avg(width::BIGINT * height) FROM run WHERE status = 'ok'"
    ).fetchall()
    if not images:
        return []
    count = min(images, OUTPUTS_SHOWN, max(1, int(MAX_PIXELS / pixels)))
    ranks = ", ".join(str((2 * number + 1) * images // (2 * count)) for number in range(count))
    return sql.records(db, _SAMPLE_SQL.format(ranks=ranks), _Made)


def _sample_of_failures(db: sql.Connection) -> list[_Failed]:
    """Return at most `FAILURES_SHOWN` failed images with as many different error codes as possible."""
    return sql.records(
        db,
        "SELECT source_path, error_code FROM ("
        "SELECT source_path, error_code, row_number() OVER (PARTITION BY error_code ORDER BY file_row_number) AS rank "
        f"FROM run WHERE status = 'failed' ORDER BY rank, error_code LIMIT {FAILURES_SHOWN}"
        ") ORDER BY error_code, source_path",
        _Failed,
    )


def _output_tiles(codec: Codec, outputs: Store, job: Job, images: Sequence[_Made]) -> list[Tile]:
    recipe = Recipe(background=job.recipe.background)
    orders = Orders(recipe=recipe, max_pixels=MAX_PIXELS, max_image_seconds=SHEET_SECONDS, side=TILE_SIDE)
    decoded = 0
    tiles = []
    for image in images:
        pixels = image.width * image.height
        if pixels <= MAX_PIXELS and decoded + pixels <= 2 * MAX_PIXELS:
            decoded += pixels
            tiles.append(_output_tile(codec, orders, outputs, image))
        else:
            tiles.append(Tile(caption=image.source_path, alarm="too large to show here"))
    return tiles


def _output_tile(codec: Codec, orders: Orders, outputs: Store, image: _Made) -> Tile:
    try:
        data = outputs.get(image.file_name, max_bytes=MAX_OUTPUT_BYTES).data
    except StorageError as error:
        return Tile(caption=image.source_path, alarm="missing" if isinstance(error, NotFound) else "can't be read")
    if hashlib.sha256(data).hexdigest() == image.output_sha256:
        [shown] = codec.run(Operation.THUMBNAIL, orders, [data])
        if isinstance(shown, Tile):
            return shown.model_copy(update={"caption": image.source_path})
    return Tile(caption=image.source_path, alarm="damaged")


def _failure_tiles(codec: Codec, job: Job, images: Sequence[_Failed]) -> list[Tile]:
    source = open_source(job.source, job.rules)
    deadline = time.monotonic() + PREVIEWS_SECONDS
    tiles = []
    for image in images:
        seconds = min(PREVIEW_SECONDS, deadline - time.monotonic())
        shown = _preview(codec, source, image, seconds) if image.error_code in PREVIEWED and seconds > 0 else Tile()
        tiles.append(shown.model_copy(update={"caption": image.source_path, "alarm": image.error_code}))
    return tiles


def _preview(codec: Codec, source: Source, image: _Failed, seconds: float) -> Tile:
    """Return a tile with the readable part of a failed image, or an empty tile if nothing is readable.

    A picture of one colour is not shown: decoders fill missing pixels with one.
    """
    try:
        data = source.get(image.source_path, max_bytes=MAX_SOURCE_BYTES).data
    except StorageError:
        return Tile()
    orders = Orders(max_pixels=MAX_PREVIEWED_PIXELS, max_image_seconds=seconds, memory=PREVIEW_BYTES, side=TILE_SIDE)
    [shown] = codec.run(Operation.THUMBNAIL, orders, [data])
    if isinstance(shown, Tile) and shown.pixels != shown.pixels[:3] * (shown.width * shown.height):
        return shown
    return Tile()
