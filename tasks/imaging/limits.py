"""What an image may ask for before anything is decoded, and what memory and time that bounds.

**Memory.** Beyond what its process held before, `transform` takes at most `BASE_BYTES`, `BYTES_PER_PIXEL` for
each pixel that `max_pixels` allows, and `BYTES_PER_SOURCE_BYTE` for each byte of the file. Headers that ask for
more are refused before a decoder sees them.

**Time.** It grows with the number of pixels and of bytes, and with nothing else: what would let a small file
keep a decoder busy (scans of a progressive JPEG, layers and code-blocks of a JPEG 2000, strips of a TIFF, the
stages of a colour profile) is counted and bounded beforehand. What a decoder makes of damage can't be foreseen;
that is for the careful lane's deadline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.errors import ErrorCode, ImageError

if TYPE_CHECKING:
    from tasks.imaging.facts import SourceFacts

BASE_BYTES = 64 << 20
BYTES_PER_PIXEL = 32
BYTES_PER_SOURCE_BYTE = 4

MAX_SIDE = 1_000_000
"""Longest side in pixels; readers of PNG have the same. Longer strips would take many bytes for each pixel."""

RECORDABLE_SIDE = (1 << 31) - 1
"""What the manifest has room for; a header can promise more."""

MAX_FRAMES = 100_000
"""Counting stops here: more frames than this are reported as this many."""

MAX_PARTS = 200_000
"""Chunks, blocks or boxes of a file that are looked at; one of more is damaged, or meant to waste time."""


def memory_bound(source_bytes: int, max_pixels: int) -> int:
    """Return the bytes of memory that `transform` may take for a file of so many bytes."""
    return BASE_BYTES + BYTES_PER_PIXEL * max_pixels + BYTES_PER_SOURCE_BYTE * source_bytes


def refuse_too_many_pixels(facts: SourceFacts, max_pixels: int) -> None:
    """Raise `decode.too_many_pixels` if a header promises more than the limit, or a side of over `MAX_SIDE`."""
    size, longest = f"{facts.width} × {facts.height} pixels", max(facts.width, facts.height)
    if facts.width * facts.height > max_pixels:
        message = f"{size} are over the limit of {max_pixels}"
    elif longest > MAX_SIDE:
        message = f"{size}: a side is longer than the {MAX_SIDE} that are read"
    else:
        return
    raise ImageError(ErrorCode.DECODE_TOO_MANY_PIXELS, message, facts if longest <= RECORDABLE_SIDE else None)
