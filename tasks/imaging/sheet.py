"""Make thumbnails, and draw contact sheets: grids of thumbnails with captions in one JPEG of limited size."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import suppress
from functools import cache

import cv2
import numpy as np
from PIL import Image, ImageFile, ImageOps

from darkroom.tasks.imaging.formats.registry import PILLOW_NAMES
from darkroom.tasks.imaging.limits import refuse_too_many_pixels
from darkroom.tasks.imaging.records import TILE_SIDE, Allow, Sheet, SourceFacts, Tile

COLUMNS = 6
GAP = 8
CAPTION_HEIGHT = 17
TEXT_SIZES = (11, 10)
TEXT_WEIGHT = 450
QUALITIES = (82, 74, 66, 58, 50, 40, 30)

PAPER = (255, 255, 255)
GROUND = (236, 238, 241)
INK = (55, 60, 70)
ALARM_GROUND = (250, 228, 228)
ALARM_INK = (170, 30, 35)


def thumbnail(
    data: bytes, side: int, *, background: tuple[int, int, int], max_pixels: int, allow: Allow
) -> tuple[int, int, bytes]:
    """Return width and height, at most `side` pixels, and RGB bytes of a picture on a background.

    Very small pictures are enlarged. Raises `ImageError`, or Pillow's exception for data that is no image.
    """
    # Pillow decodes cut files only by this setting of the whole process.
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        with Image.open(io.BytesIO(data), formats=PILLOW_NAMES) as opened:
            refuse_too_many_pixels(SourceFacts("", opened.mode, *opened.size), max_pixels)
            allow(opened.width * opened.height)
            opened.draft(None, (2 * side, 2 * side))
            opened.load()
            picture = opened.convert("RGBA" if opened.has_transparency_data else "RGB")
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    picture.thumbnail((side, side))
    with suppress(Exception):  # the file's EXIF may be damaged
        picture = ImageOps.exif_transpose(picture)
    if picture.mode == "RGBA":
        ground = Image.new("RGBA", picture.size, background)
        picture = Image.alpha_composite(ground, picture).convert("RGB")
    times = side // max(picture.size)
    pixels = np.asarray(picture).repeat(times, axis=0).repeat(times, axis=1)
    return pixels.shape[1], pixels.shape[0], pixels.tobytes()


def draw_sheet(data: bytes) -> bytes:
    """Return a `Sheet`, given as JSON, drawn as a JPEG of the best quality within its `max_bytes`."""
    order = Sheet.model_validate_json(data)
    drawn = _grid(order.tiles)
    scale = 1.0
    while True:
        for quality in QUALITIES:
            _, encoded = cv2.imencode(
                ".jpg",
                cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR),
                [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1],
            )
            if len(encoded) <= order.max_bytes:
                return encoded.tobytes()
        scale *= 0.8
        drawn = cv2.resize(_grid(order.tiles), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _grid(tiles: Sequence[Tile]) -> np.ndarray:
    columns = min(COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    step_x, step_y = TILE_SIDE + GAP, TILE_SIDE + CAPTION_HEIGHT + GAP
    sheet = np.full((rows * step_y + GAP, columns * step_x + GAP, 3), PAPER, np.uint8)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        top, left = GAP + row * step_y, GAP + column * step_x
        sheet[top : top + TILE_SIDE, left : left + TILE_SIDE] = _place(tile)
        top += TILE_SIDE
        sheet[top : top + CAPTION_HEIGHT, left : left + TILE_SIDE] = _line(tile.caption, INK, PAPER)
    return sheet


def _place(tile: Tile) -> np.ndarray:
    """Return (`TILE_SIDE`, `TILE_SIDE`, 3): a tile's picture in the middle, with its alarm, if any, across it."""
    place = np.full((TILE_SIDE, TILE_SIDE, 3), ALARM_GROUND if tile.alarm else GROUND, np.uint8)
    if tile.pixels:
        top, left = (TILE_SIDE - tile.height) // 2, (TILE_SIDE - tile.width) // 2
        pixels = np.frombuffer(tile.pixels, np.uint8).reshape(tile.height, tile.width, 3)
        place[top : top + tile.height, left : left + tile.width] = pixels
    if tile.alarm:
        top = TILE_SIDE - CAPTION_HEIGHT if tile.pixels else (TILE_SIDE - CAPTION_HEIGHT) // 2
        place[top : top + CAPTION_HEIGHT] = _line(tile.alarm, ALARM_INK, ALARM_GROUND)
    return place


def _line(text: str, ink: tuple[int, int, int], ground: tuple[int, int, int]) -> np.ndarray:
    """Return (`CAPTION_HEIGHT`, `TILE_SIDE`, 3): a centred line of text, or as much of its end as fits."""
    line = np.full((CAPTION_HEIGHT, TILE_SIDE, 3), ground, np.uint8)
    text = "".join(character if character.isprintable() else "�" for character in text)
    size = next((size for size in TEXT_SIZES if _width(text, size) <= TILE_SIDE), TEXT_SIZES[0])
    shown = text if _width(text, size) <= TILE_SIDE else f"…{text[-TILE_SIDE:]}"
    while _width(shown, size) > TILE_SIDE:
        shown = f"…{shown[2:]}"
    left = (TILE_SIDE - _width(shown, size)) // 2
    cv2.putText(line, shown, (left, CAPTION_HEIGHT - 5), ink, _font(), size, TEXT_WEIGHT)
    return line


def _width(text: str, size: int) -> int:
    _, _, width, _ = cv2.getTextSize((1, 1), text, (0, 0), _font(), size, TEXT_WEIGHT)
    return int(width)


@cache
def _font() -> cv2.FontFace:
    """Return OpenCV's built-in font, which covers many scripts."""
    return cv2.FontFace("sans")
