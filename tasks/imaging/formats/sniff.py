"""Recognise image files by their first bytes, without decoding them."""

from __future__ import annotations

from darkroom.tasks.errors import ErrorCode
from darkroom.tasks.imaging.formats.registry import SNIFFED_BYTES, recognise
from darkroom.tasks.imaging.records import TransformError

__all__ = ["SNIFFED_BYTES", "is_image"]


def is_image(head: bytes) -> bool:
    """Return whether a file is an image, even of a format that isn't read; `head`: its first `SNIFFED_BYTES`."""
    try:
        recognise(head)
    except TransformError as error:
        return error.code is ErrorCode.DECODE_UNSUPPORTED
    return True
