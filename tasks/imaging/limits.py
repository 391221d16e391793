"""What an image may take, decided by what its header promises.

`max_pixels` is checked before anything is decoded. Memory and processor time are enforced by the kernel on the codec
process, whatever a decoder does with the file; see `darkroom.tasks.worker.codec_process`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from darkroom.tasks.errors import ErrorCode, ImageError

if TYPE_CHECKING:
    from darkroom.tasks.imaging.facts import SourceFacts

BASE_BYTES = 256 << 20
BYTES_PER_PIXEL = 64
BYTES_PER_SOURCE_BYTE = 4
"""Memory that an image may take: some in any case, some for each pixel of itself or its output, and some for each byte
of its file. Decoding touches at most half as much for each pixel; the kernel also counts what is only reserved."""

PIXELS_PER_TURN = 25_000_000
"""An image has `max_image_seconds` for each so many pixels of itself or its output. The slowest that was measured,
WebP with transparency, enlarged, took 26 s of one core for so many."""

RECORDABLE_SIDE = (1 << 31) - 1
"""Longest side in pixels that the manifest has room for; a header can promise more."""

MAX_FRAMES = 100_000
"""More frames than this are recorded as this many."""


def refuse_too_many_pixels(facts: SourceFacts, max_pixels: int) -> None:
    """Raise `decode.too_many_pixels` if a header promises more pixels than the limit, or a side of over 2^31."""
    recordable = max(facts.width, facts.height) <= RECORDABLE_SIDE
    if recordable and facts.width * facts.height <= max_pixels:
        return
    message = f"{facts.width} × {facts.height} pixels are over the limit of {max_pixels}"
    raise ImageError(ErrorCode.DECODE_TOO_MANY_PIXELS, message, facts if recordable else None)
