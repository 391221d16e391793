"""The values that other packages exchange with this one; importing them loads no codec library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from pydantic import BaseModel, ConfigDict

from darkroom.tasks.errors import ErrorCode, ImageError

Size: TypeAlias = tuple[int, int]
"""Width and height in pixels."""

Extent: TypeAlias = tuple[float, float]
"""Width and height in pixels, with fractions."""

Rectangle: TypeAlias = tuple[int, int, int, int]
"""Left, top, width, height in pixels."""

Allow: TypeAlias = Callable[[int], None]
"""Called with the number of an image's pixels after its header was read and before any is decoded; may raise."""

TILE_SIDE = 128
"""Width and height of a contact sheet's tile in pixels, without its caption."""


def unlimited(_pixels: int) -> None:
    """Allow an image of any number of pixels."""


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What a source's header says.

    Args:
        format: the `name` of one of the formats in `darkroom.tasks.imaging.formats`.
        mode: Pillow's name of the pixel layout, such as `L`, `RGB`, `CMYK`, `P`, `RGBA`, `I;16`.
        width: pixels as stored, before orientation.
        height: pixels as stored, before orientation.
        orientation: 1..8 as in EXIF; 1 if the file states none, or an invalid one.
        frames: number of an animation's frames or a TIFF's pages; else 1.
    """

    format: str
    mode: str
    width: int
    height: int
    orientation: int = 1
    frames: int = 1

    @property
    def oriented_size(self) -> Size:
        """Width and height in pixels after orientation."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


class TransformError(ImageError):
    """An image could not be transformed; `facts` is what its header says, None if that could not be read."""

    def __init__(self, code: ErrorCode, message: str, facts: SourceFacts | None = None) -> None:
        super().__init__(code, message)
        self.facts = facts


@dataclass(frozen=True, slots=True)
class Transformed:
    """An output, and how it was made.

    `output_x = oriented_source_x * scale_x + offset_x`, in coordinates whose integers are the edges of pixels; the same
    for y. `channels` is the number that a decoder of the output returns.
    """

    __pydantic_config__: ClassVar = {"arbitrary_types_allowed": True}  # for the memoryview

    data: bytes | memoryview
    facts: SourceFacts
    format: str
    width: int
    height: int
    channels: int
    scale_x: float
    scale_y: float
    offset_x: float
    offset_y: float
    warnings: tuple[str, ...]
    decode_ms: float
    resize_ms: float
    encode_ms: float


@dataclass(frozen=True, slots=True)
class Inspected:
    """What decoding an image file found; sizes in pixels as stored."""

    format: str
    width: int
    height: int
    channels: int


class Tile(BaseModel):
    """An image in a contact sheet."""

    model_config = ConfigDict(frozen=True, ser_json_bytes="base64", val_json_bytes="base64")

    caption: str = ""
    """Text below the tile; only its end is shown if it is too long."""

    alarm: str = ""
    """What is wrong with the image, drawn across the tile; empty if nothing is."""

    width: int = 0
    height: int = 0
    """Size of its picture in pixels, at most `TILE_SIDE`."""

    pixels: bytes = b""
    """RGB; empty if there is no picture."""


class Sheet(BaseModel):
    """A grid of tiles, to be drawn as a JPEG of at most `max_bytes`."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    tiles: tuple[Tile, ...]
    max_bytes: int
