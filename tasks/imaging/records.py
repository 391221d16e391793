"""The values that cross the border of this package. Nothing here loads a codec library."""

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
"""Called with the number of pixels that an image will take, as soon as its header says so and before any is decoded."""

TILE_SIDE = 128
"""Width and height of a place in a contact sheet, in pixels."""


def unlimited(_pixels: int) -> None:
    """Allow an image of any number of pixels."""


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What a source's header says, before any pixel is decoded.

    Args:
        format: the `name` of one of the formats in `darkroom.tasks.imaging.formats`.
        mode: Pillow's name of the pixel layout, such as `L`, `RGB`, `CMYK`, `P`, `RGBA`, `I;16`.
        width: pixels as stored, before orientation.
        height: pixels as stored, before orientation.
        orientation: 1..8 as EXIF defines them; 1 where the file says nothing valid.
        frames: frames of an animation, pages of a TIFF; else 1.
    """

    format: str
    mode: str
    width: int
    height: int
    orientation: int = 1
    frames: int = 1

    @property
    def oriented_size(self) -> Size:
        """Width and height in pixels as a viewer shows the picture."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


class TransformError(ImageError):
    """An image could not be transformed; `facts` is what its header said, None if it could not be read."""

    def __init__(self, code: ErrorCode, message: str, facts: SourceFacts | None = None) -> None:
        super().__init__(code, message)
        self.facts = facts


@dataclass(frozen=True, slots=True)
class Transformed:
    """One finished output, and how it was made.

    `output_x = oriented_source_x * scale_x + offset_x`, in continuous coordinates whose integers are
    pixel edges; the same for y. Times are in milliseconds. `channels` counts those that a reader of the
    output will see.
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
    """What an image file turned out to be; sizes in pixels as stored."""

    format: str
    width: int
    height: int
    channels: int


class Tile(BaseModel):
    """One place in a contact sheet."""

    model_config = ConfigDict(frozen=True, ser_json_bytes="base64", val_json_bytes="base64")

    caption: str = ""
    """Text below the place; only its end is shown if it is too long."""

    alarm: str = ""
    """What is wrong with the image, written across the place; empty if nothing is."""

    width: int = 0
    height: int = 0
    """Of its picture, in pixels: at most `TILE_SIDE`."""

    pixels: bytes = b""
    """RGB; empty where there is no picture."""


class Sheet(BaseModel):
    """A grid of tiles, to be drawn as a JPEG of at most `max_bytes`."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    tiles: tuple[Tile, ...]
    max_bytes: int
