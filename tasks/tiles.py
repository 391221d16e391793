"""Pictures in a grid with captions, as one JPEG of limited size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

from tasks.text import printable

if TYPE_CHECKING:
    from tasks.imaging.facts import Pixels

SIDE = 128
"""Width and height of a picture in the grid, in pixels."""

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


@dataclass(frozen=True, slots=True)
class Tile:
    """A place in the grid.

    Args:
        caption: what is written below; its end is kept where it is too long.
        pixels: RGB picture of at most `SIDE` pixels a side; None where there is none.
        alarm: what is wrong with it, written across the place; empty if nothing is.
    """

    caption: str
    pixels: Pixels | None
    alarm: str = ""


def draw_sheet(tiles: Sequence[Tile], max_bytes: int) -> bytes:
    """Return tiles in rows of `COLUMNS` as a JPEG, in the best quality of at most so many bytes."""
    sheet = _grid(tiles)
    scale = 1.0
    while True:
        for quality in QUALITIES:
            _, encoded = cv2.imencode(
                ".jpg",
                cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR),
                [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1],
            )
            if len(encoded) <= max_bytes:
                return encoded.tobytes()
        scale *= 0.8
        sheet = cv2.resize(_grid(tiles), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


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
    if tile.pixels is not None:
        height, width = tile.pixels.shape[:2]
        top, left = (SIDE - height) // 2, (SIDE - width) // 2
        place[top : top + height, left : left + width] = tile.pixels
    if tile.alarm:
        top = (SIDE - CAPTION_HEIGHT) // 2 if tile.pixels is None else SIDE - CAPTION_HEIGHT
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
