"""What an image may take, decided by what its header promises.

`max_pixels` is checked before anything is decoded. Memory and processor time are enforced by the kernel on the codec
process, whatever a decoder does with the file; see `darkroom.tasks.worker.codec_process`.
"""

from __future__ import annotations

from darkroom.tasks.errors import ErrorCode, ImageError
from darkroom.tasks.imaging.records import SourceFacts

BASE_BYTES = 256 << 20
BYTES_PER_PIXEL = 64
BYTES_PER_SOURCE_BYTE = 4
"""Memory that an image may take: `BASE_BYTES` in any case, more for each pixel of itself or its output, and more for
each byte of its file. Decoding touches at most half as much for each pixel; the kernel also counts what is only
reserved."""

PIXELS_PER_TURN = 25_000_000
"""An image has `max_image_seconds` for each 25 million pixels of itself or its output. The slowest measured, WebP with
transparency, enlarged, took 26 s of one core for that many."""

RECORDABLE_SIDE = (1 << 31) - 1
"""Longest side in pixels that fits into the manifest; a header can promise more."""

MAX_FRAMES = 100_000
"""More frames than this are recorded as this many."""


def is_recordable(facts: SourceFacts) -> bool:
    """Return whether the manifest can hold a source's size."""
    return max(facts.width, facts.height) <= RECORDABLE_SIDE


def refuse_too_many_pixels(facts: SourceFacts, max_pixels: int) -> None:
    """Raise `decode.too_many_pixels` if a header promises more pixels than the limit, or a side of 2^31 or more."""
    if facts.width * facts.height > max_pixels or not is_recordable(facts):
        message = f"{facts.width} × {facts.height} pixels are over the limit of {max_pixels}"
        raise ImageError(ErrorCode.DECODE_TOO_MANY_PIXELS, message)
