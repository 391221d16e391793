"""Two pictures of a run: a sample of its outputs, and one of what failed."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tasks import sql
from tasks.destination import Workspace
from tasks.errors import ErrorCode, ImageError
from tasks.journal import Row
from tasks.preview import preview
from tasks.recipe import Job
from tasks.storage import LocalFolder
from tasks.tiles import SIDE, Tile, draw_sheet

OUTPUTS_SHOWN = 24
FAILURES_SHOWN = 12

MAX_BYTES = 90_000
"""Of each picture: they are stored in Prefect's database, in text that is a third longer."""

MAX_OUTPUT_BYTES = 64 << 20
MAX_PIXELS = 60_000_000
"""Pixels of outputs that are decoded, about a second's work: the larger they are, the fewer are shown."""

MAX_SOURCE_BYTES = 64 << 20
PREVIEW_SECONDS = 3.0
PREVIEWS_SECONDS = 6.0
"""What one broken image may take to decode, and all of them."""

PREVIEWED = frozenset(
    {
        ErrorCode.DECODE_TRUNCATED,
        ErrorCode.DECODE_CORRUPT,
        ErrorCode.ENCODE_FAILED,
        ErrorCode.WRITE_NO_SPACE,
        ErrorCode.WRITE_DENIED,
        ErrorCode.WRITE_FAILED,
    }
)
"""Failures of images that may show something. What has crashed, hung or exhausted a decoder is left alone."""


@dataclass(frozen=True, slots=True)
class ContactSheet:
    """A picture of several images, as a JPEG of at most `MAX_BYTES`."""

    jpeg: bytes
    images: int


@dataclass(frozen=True, slots=True)
class ContactSheets:
    """A run's pictures, as far as there was anything to show."""

    made: ContactSheet | None = None
    failed: ContactSheet | None = None


def make_contact_sheets(workspace: Workspace, job: Job) -> ContactSheets:
    """Draw a sample of a published run's outputs, spread over their paths, and one of what failed.

    An output that is missing or damaged is a place without a picture.
    """
    with sql.connect(workspace.root) as db:
        run_file = workspace.destination.runs / job.run_file
        db.execute(f"CREATE VIEW run AS FROM {sql.parquet(run_file, numbered=True)}")
        made, failed = _sample(db), _sample_of_failures(db)
    return ContactSheets(_sheet(_output_tiles(workspace, job, made)), _sheet(_failure_tiles(job, failed)))


def _sheet(tiles: Sequence[Tile]) -> ContactSheet | None:
    return ContactSheet(draw_sheet(tiles, MAX_BYTES), len(tiles)) if tiles else None


_SAMPLE_SQL = """
    SELECT source_path, file_name, width, height, output_bytes FROM run
    WHERE file_row_number IN (
        SELECT file_row_number FROM (
            SELECT file_row_number, row_number() OVER (ORDER BY file_row_number) - 1 AS rank
            FROM run WHERE status = 'ok'
        )
        WHERE rank IN ({ranks})
    )
    ORDER BY source_path
"""


def _sample(db: sql.Connection) -> list[Row]:
    """Return at most `OUTPUTS_SHOWN` images that were made, equally far from each other in the order of paths."""
    [made] = sql.rows(
        db, "SELECT count(*) AS images, avg(width::BIGINT * height) AS pixels FROM run WHERE status = 'ok'"
    )
    images = made["images"]
    if not images:
        return []
    count = min(images, OUTPUTS_SHOWN, max(1, int(MAX_PIXELS / made["pixels"])))
    ranks = ", ".join(str((2 * number + 1) * images // (2 * count)) for number in range(count))
    return sql.rows(db, _SAMPLE_SQL.format(ranks=ranks))


def _sample_of_failures(db: sql.Connection) -> list[Row]:
    """Return failed images, with as many different codes among them as can be."""
    return sql.rows(
        db,
        "SELECT source_path, error_code FROM ("
        "SELECT source_path, error_code, row_number() OVER (PARTITION BY error_code ORDER BY file_row_number) AS rank "
        f"FROM run WHERE status = 'failed' ORDER BY rank, error_code LIMIT {FAILURES_SHOWN}"
        ") ORDER BY error_code, source_path",
    )


def _output_tiles(workspace: Workspace, job: Job, images: Sequence[Row]) -> list[Tile]:
    outputs = LocalFolder(os.fsencode(workspace.destination.root))
    tiles = []
    decoded = 0
    for image in images:
        pixels = image["width"] * image["height"]
        if pixels <= MAX_PIXELS and decoded + pixels <= 2 * MAX_PIXELS:
            decoded += pixels
            tiles.append(_output_tile(outputs, image, job.recipe.background_rgb))
        else:
            tiles.append(Tile(image["source_path"], None, "too large to show here"))
    return tiles


def _output_tile(outputs: LocalFolder, image: Row, background: tuple[int, int, int]) -> Tile:
    try:
        data, _ = outputs.read(image["file_name"], MAX_OUTPUT_BYTES)
        return Tile(image["source_path"], _thumbnail(data, image, background))
    except ImageError as error:
        wrong = "missing" if error.code is ErrorCode.SOURCE_NOT_FOUND else "can't be read"
    except Exception:  # noqa: BLE001 - whatever lies there instead of the output
        wrong = "damaged"
    return Tile(image["source_path"], None, wrong)


def _thumbnail(data: bytes, image: Row, background: tuple[int, int, int]) -> np.ndarray:
    """Return an output as RGB pixels of at most `SIDE` a side; very small ones are enlarged by whole pixels."""
    if len(data) != image["output_bytes"]:
        raise ValueError("another size")
    with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as opened:
        if opened.size != (image["width"], image["height"]):
            raise ValueError("other dimensions")
        opened.thumbnail((SIDE, SIDE))
        picture = opened.convert("RGBA" if opened.has_transparency_data else "RGB")
    if picture.mode == "RGBA":
        ground = Image.new("RGBA", picture.size, background)
        picture = Image.alpha_composite(ground, picture).convert("RGB")
    times = SIDE // max(picture.size)
    return np.asarray(picture).repeat(times, axis=0).repeat(times, axis=1)


def _failure_tiles(job: Job, images: Sequence[Row]) -> list[Tile]:
    source = LocalFolder(os.fsencode(Path(job.source)))
    deadline = time.monotonic() + PREVIEWS_SECONDS
    tiles = []
    for image in images:
        seconds = min(PREVIEW_SECONDS, deadline - time.monotonic())
        shown = _preview(source, image, seconds) if image["error_code"] in PREVIEWED and seconds > 0 else None
        tiles.append(Tile(image["source_path"], shown, image["error_code"]))
    return tiles


def _preview(source: LocalFolder, image: Row, seconds: float) -> np.ndarray | None:
    try:
        data, _ = source.read(image["source_path"], MAX_SOURCE_BYTES)
    except ImageError:
        return None
    found = preview(data, SIDE, seconds)
    if found is None:
        return None
    width, height, pixels = found
    return np.frombuffer(pixels, np.uint8).reshape(height, width, 3)
