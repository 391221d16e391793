"""What a worker and its codec process say to each other: orders, failures, and how a process ended."""

from __future__ import annotations

import struct

from pydantic import BaseModel, ConfigDict

from darkroom.tasks.errors import ErrorCode
from darkroom.tasks.imaging import SourceFacts
from darkroom.tasks.imaging.limits import BASE_BYTES, BYTES_PER_PIXEL, BYTES_PER_SOURCE_BYTE, PIXELS_PER_TURN
from darkroom.tasks.settings import Recipe

FAILED, MADE = b"-", b"+"
"""What an answer begins with; JSON follows."""

EXIT_CODE = struct.Struct("=i")
"""How a codec process ended, in the terms of `subprocess.Popen.returncode`."""


class Failure(BaseModel):
    """An `ImageError` in an answer."""

    code: ErrorCode
    message: str
    facts: SourceFacts | None


class Orders(BaseModel):
    """Orders for the images of a batch."""

    model_config = ConfigDict(frozen=True)

    recipe: Recipe = Recipe()
    max_pixels: int
    max_image_seconds: float
    memory: int | None = None
    """Bytes that an image may take, however large it is; None: as many as its size gives reason to."""

    side: int = 0
    """Longest side in pixels of thumbnails."""

    def seconds_for(self, pixels: int) -> float:
        """Return how many seconds of processor time an image of so many pixels may take."""
        return self.max_image_seconds * max(1.0, min(pixels, self.max_pixels) / PIXELS_PER_TURN)

    def memory_for(self, pixels: int, source_bytes: int) -> int:
        """Return how many bytes of memory an image of so many pixels, in so many bytes, may take."""
        wanted = BASE_BYTES + BYTES_PER_PIXEL * min(pixels, self.max_pixels) + BYTES_PER_SOURCE_BYTE * source_bytes
        return wanted if self.memory is None else min(wanted, self.memory)
