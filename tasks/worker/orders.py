"""Messages between a worker and its codec process: orders for the images of a batch, and an answer for each image.

An answer is one byte, for success or failure, and JSON; the output is stored separately in the batch.
"""

from __future__ import annotations

import json
from typing import TypeAlias

from pydantic import BaseModel, ConfigDict, TypeAdapter

from darkroom.tasks.errors import ErrorCode, ImageError
from darkroom.tasks.imaging import Inspected, SourceFacts, Tile, Transformed, TransformError
from darkroom.tasks.imaging.limits import BASE_BYTES, BYTES_PER_PIXEL, BYTES_PER_SOURCE_BYTE, PIXELS_PER_TURN
from darkroom.tasks.settings import Recipe
from darkroom.tasks.worker.shared_batch import Operation

FAILED, MADE = b"-", b"+"
"""First byte of an answer."""

Answer: TypeAlias = Transformed | Inspected | Tile | str | bytes | ImageError
"""The result for an image. The output of a `Transformed` stays in its batch and is valid until that is released."""

_TRANSFORMED = TypeAdapter(Transformed)
_INSPECTED = TypeAdapter(Inspected)
_TEXT = TypeAdapter(str)
_SIZE = TypeAdapter(tuple[int, int])


class Orders(BaseModel):
    """Recipe and limits for the images of a batch."""

    model_config = ConfigDict(frozen=True)

    recipe: Recipe = Recipe()
    max_pixels: int
    max_image_seconds: float
    memory: int | None = None
    """Upper limit in bytes on the memory for an image, beside that by its size; None: no other limit."""

    side: int = 0
    """Longest side in pixels of thumbnails."""

    def seconds_for(self, pixels: int) -> float:
        """Return the seconds of processor time that an image with this number of pixels may take."""
        return self.max_image_seconds * max(1.0, min(pixels, self.max_pixels) / PIXELS_PER_TURN)

    def memory_for(self, pixels: int, source_bytes: int) -> int:
        """Return the bytes of memory that an image with this number of pixels and bytes may take."""
        wanted = BASE_BYTES + BYTES_PER_PIXEL * min(pixels, self.max_pixels) + BYTES_PER_SOURCE_BYTE * source_bytes
        return wanted if self.memory is None else min(wanted, self.memory)


class Failure(BaseModel):
    """The JSON of an answer that is an `ImageError`."""

    code: ErrorCode
    message: str
    facts: SourceFacts | None


def read_answer(operation: Operation, output: memoryview, answer: memoryview) -> Answer:
    """Return the result of an operation; raise `ValueError` if output or answer are invalid."""
    kind, text = bytes(answer[:1]), bytes(answer[1:])
    if kind == FAILED:
        failure = Failure.model_validate_json(text)
        return TransformError(failure.code, failure.message, failure.facts)
    if kind != MADE:
        raise ValueError(f"an answer that begins with {kind!r}")
    match operation:
        case Operation.TRANSFORM:
            return _TRANSFORMED.validate_python({**json.loads(text), "data": output})
        case Operation.INSPECT:
            return _INSPECTED.validate_json(text)
        case Operation.DESCRIBE:
            return _TEXT.validate_json(text)
        case Operation.SHEET:
            return bytes(output)
    width, height = _SIZE.validate_json(text)
    if len(output) != 3 * width * height:
        raise ValueError(f"{len(output)} bytes for a picture of {width} × {height} pixels")
    return Tile(width=width, height=height, pixels=bytes(output))
