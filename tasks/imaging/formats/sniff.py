"""Whether a file is an image at all, by its first bytes; nothing is decoded."""

from __future__ import annotations

from darkroom.tasks.errors import ErrorCode
from darkroom.tasks.imaging.formats.registry import SNIFFED_BYTES, recognise
from darkroom.tasks.imaging.records import TransformError

__all__ = ["SNIFFED_BYTES", "is_image"]


def is_image(head: bytes) -> bool:
    """Return whether a file that begins with these `SNIFFED_BYTES` is an image, also of a format that isn't read."""
    try:
        recognise(head)
    except TransformError as error:
        return error.code is ErrorCode.DECODE_UNSUPPORTED
    return True
