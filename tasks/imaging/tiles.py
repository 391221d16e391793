"""What a contact sheet is drawn of, on its way from the flow to a codec process."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

SIDE = 128
"""Width and height of a picture in the grid, in pixels."""


class Tile(BaseModel):
    """A place in the grid."""

    model_config = ConfigDict(frozen=True, ser_json_bytes="base64", val_json_bytes="base64")

    caption: str = ""
    """What is written below; its end is kept where it is too long."""

    alarm: str = ""
    """What is wrong with it, written across the place; empty if nothing is."""

    width: int = 0
    height: int = 0
    """Of its picture, in pixels: at most `SIDE`."""

    pixels: bytes = b""
    """RGB; empty where there is no picture."""


class Sheet(BaseModel):
    """A grid of tiles, to be drawn as a JPEG of at most so many bytes."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    tiles: tuple[Tile, ...]
    max_bytes: int
