"""Limits on an image's pixels, memory and processor time, by the size that its header states.

The number of pixels is checked before any is decoded. The kernel enforces memory and processor time on the codec
process, whatever its decoder does; see `darkroom.tasks.worker.codec_process`.
"""

from __future__ import annotations

from darkroom.tasks.errors import ErrorCode, ImageError
from darkroom.tasks.imaging.records import SourceFacts

BASE_BYTES = 256 << 20
BYTES_PER_PIXEL = 64
BYTES_PER_SOURCE_BYTE = 4
"""Memory that an image may take: a base, and more for each pixel of source or output (the larger) and each byte of its
file. Decoding uses at most half as much per pixel, but the kernel counts reserved memory, too."""

PIXELS_PER_TURN = 25_000_000
"""An image may take `max_image_seconds` for each 25 million pixels of source or output (the larger). The slowest in our
measurements, an enlarged WebP with transparency, took 26 s of one core for that many."""

RECORDABLE_SIDE = (1 << 31) - 1
"""Longest side in pixels that fits into the manifest; headers can state longer ones."""

MAX_FRAMES = 100_000
"""Upper limit on the number of frames that is recorded."""


def is_recordable(facts: SourceFacts) -> bool:
    """Return whether a source's size fits into the manifest."""
    return max(facts.width, facts.height) <= RECORDABLE_SIDE


def refuse_too_many_pixels(facts: SourceFacts, max_pixels: int) -> None:
    """Raise `decode.too_many_pixels` if a header states more pixels than `max_pixels`, or too long a side to record."""
    if facts.width * facts.height > max_pixels or not is_recordable(facts):
        message = f"{facts.width:,} × {facts.height:,} pixels are over the limit of {max_pixels:,} (`max_pixels`)"
        raise ImageError(ErrorCode.DECODE_TOO_MANY_PIXELS, message)
