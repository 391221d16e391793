"""The limit on decoded pixels, checked against headers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.errors import ErrorCode, ImageError

if TYPE_CHECKING:
    from tasks.imaging.facts import SourceFacts


def refuse_too_many_pixels(facts: SourceFacts, max_pixels: int) -> None:
    """Raise `decode.too_many_pixels` if a header promises more than the limit."""
    if facts.width * facts.height > max_pixels:
        message = f"{facts.width} × {facts.height} pixels are over the limit of {max_pixels}"
        raise ImageError(ErrorCode.DECODE_TOO_MANY_PIXELS, message, facts)
