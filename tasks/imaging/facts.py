"""The records that cross the border of this package: what a source was, what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8]
    Samples = npt.NDArray[Any]

Allow: TypeAlias = "Callable[[int], None]"
"""Called with the number of pixels that an image will take, as soon as its header says so and before any is decoded."""


def unlimited(_pixels: int) -> None:
    """Allow an image of any number of pixels."""


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What a source's header says, before any pixel is decoded.

    Args:
        format: lower case: `jpeg`, `png`, `webp`, `tiff`, `bmp`, `gif`, `avif`, `ppm`, `ico`, `jpeg2000`.
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
    def oriented_size(self) -> tuple[int, int]:
        """Width and height in pixels as a viewer shows the picture."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


@dataclass(frozen=True, slots=True)
class Decoded:
    """Pixels in sRGB: (height, width) gray, (height, width, 3) RGB, or 4 with straight alpha; uint8.

    Args:
        pixels: the picture, or a reduced one that covers the same area.
        orientation: what is still to be applied to `pixels`, 1..8.
        warnings: what was odd about the file.
    """

    pixels: Pixels
    orientation: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Transformed:
    """One finished output, and how it came about.

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
