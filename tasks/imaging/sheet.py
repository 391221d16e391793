"""Pictures in a grid with captions, as one JPEG of limited size."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

from darkroom.tasks.imaging.tiles import SIDE, Sheet, Tile
from darkroom.tasks.reporting.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def draw_sheet(data: bytes) -> bytes:
    """Return the tiles of a `Sheet` in rows of `COLUMNS` as a JPEG, in the best quality that is small enough.

    Args:
        data: the `Sheet`, as JSON.
    """
    wanted = Sheet.model_validate_json(data)
    sheet = _grid(wanted.tiles)
    scale = 1.0
    while True:
        for quality in QUALITIES:
            _, encoded = cv2.imencode(
                ".jpg",
                cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR),
                [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1],
            )
            if len(encoded) <= wanted.max_bytes:
                return encoded.tobytes()
        scale *= 0.8
        sheet = cv2.resize(_grid(wanted.tiles), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _grid(tiles: Sequence[Tile]) -> np.ndarray:
    columns = min(COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    step_x, step_y = SIDE + GAP, SIDE + CAPTION_HEIGHT + GAP
    sheet = np.full((rows * step_y + GAP, columns * step_x + GAP, 3), PAPER, np.uint8)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        top, left = GAP + row * step_y, GAP + column * step_x
        sheet[top : top + SIDE, left : left + SIDE] = _place(tile)
        sheet[top + SIDE : top + SIDE + CAPTION_HEIGHT, left : left + SIDE] = _line(tile.caption, INK, PAPER)
    return sheet


def _place(tile: Tile) -> np.ndarray:
    """Return a tile's picture in the middle of its place, or across the place what is wrong with it."""
    place = np.full((SIDE, SIDE, 3), ALARM_GROUND if tile.alarm else GROUND, np.uint8)
    if tile.pixels:
        top, left = (SIDE - tile.height) // 2, (SIDE - tile.width) // 2
        pixels = np.frombuffer(tile.pixels, np.uint8).reshape(tile.height, tile.width, 3)
        place[top : top + tile.height, left : left + tile.width] = pixels
    if tile.alarm:
        top = SIDE - CAPTION_HEIGHT if tile.pixels else (SIDE - CAPTION_HEIGHT) // 2
        place[top : top + CAPTION_HEIGHT] = _line(tile.alarm, ALARM_INK, ALARM_GROUND)
    return place


def _line(text: str, ink: tuple[int, int, int], ground: tuple[int, int, int]) -> np.ndarray:
    """Return a strip as wide as a tile with a line of text in its middle, or as much of its end as fits."""
    line = np.full((CAPTION_HEIGHT, SIDE, 3), ground, np.uint8)
    text = printable(text)
    size = next((size for size in TEXT_SIZES if _width(text, size) <= SIDE), TEXT_SIZES[0])
    shown = text if _width(text, size) <= SIDE else f"…{text[-SIDE:]}"
    while _width(shown, size) > SIDE:
        shown = f"…{shown[2:]}"
    left = (SIDE - _width(shown, size)) // 2
    cv2.putText(line, shown, (left, CAPTION_HEIGHT - 5), ink, _font(), size, TEXT_WEIGHT)
    return line


def _width(text: str, size: int) -> int:
    _, _, width, _ = cv2.getTextSize((1, 1), text, (0, 0), _font(), size, TEXT_WEIGHT)
    return int(width)


@cache
def _font() -> cv2.FontFace:
    """Return OpenCV's own font, which knows many scripts."""
    return cv2.FontFace("sans")
