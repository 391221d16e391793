"""Bombs, and their outcomes."""

from __future__ import annotations

SIDE = 65_500
"""A side of pictures that have too many pixels."""

PIXELS, CORRUPT, UNSUPPORTED, TRUNCATED, UNKNOWN = (
    f"decode.{code}" for code in ("too_many_pixels", "corrupt", "unsupported", "truncated", "unknown_format")
)
OK = "ok"

Bomb = tuple[bytes, str]
"""A file, and its outcome under the first recipe: an error code, or `ok` and the warnings."""
