"""The boundary: whatever a decoder raises becomes one `ImageError` with a code of the closed list."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import cv2
from PIL import Image

from darkroom.tasks.errors import ErrorCode, ImageError

if TYPE_CHECKING:
    from darkroom.tasks.imaging.facts import SourceFacts

TRUNCATED = re.compile(
    r"truncat|premature end of JPEG file|unexpected end|end of (file|stream)|reached EOF|not enough|"
    r"incomplete|requires a buffer|no more images",
    re.I,
)
UNSUPPORTED = re.compile(
    r"unsupported|not supported|not implemented|cannot handle|unknown (pixel|data|compression|raw)|"
    r"unknown .*mode|more samples|no codec",
    re.I,
)
DAMAGED = re.compile(r"unsupported marker type", re.I)
"""What sounds like one of the others, but is what damage looks like."""

OUT_OF_MEMORY = -4
"""OpenCV's `StsNoMem`."""


def translate(error: Exception, facts: SourceFacts | None, ends_early: bool = False) -> ImageError:
    """Turn a decoder's exception into an `ImageError` that keeps what is known about the source.

    `ends_early` says that the file is known to be shorter than it claims, whatever the decoder called it.
    """
    if isinstance(error, ImageError):
        return error if error.facts else ImageError(error.code, error.message, facts)
    return ImageError(_code(error, ends_early), describe(error), facts)


def _code(error: Exception, ends_early: bool) -> ErrorCode:
    text = str(error)
    if is_out_of_memory(error):
        return ErrorCode.DECODE_MEMORY
    if isinstance(error, Image.DecompressionBombError):
        return ErrorCode.DECODE_TOO_MANY_PIXELS
    if ends_early or isinstance(error, EOFError) or TRUNCATED.search(text):
        return ErrorCode.DECODE_TRUNCATED
    if DAMAGED.search(text):
        return ErrorCode.DECODE_CORRUPT
    if isinstance(error, NotImplementedError) or UNSUPPORTED.search(text):
        return ErrorCode.DECODE_UNSUPPORTED
    return ErrorCode.DECODE_CORRUPT


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether a codec failed for want of memory, rather than for what the image is."""
    return isinstance(error, MemoryError) or (isinstance(error, cv2.error) and error.code == OUT_OF_MEMORY)


def describe(error: Exception) -> str:
    """Say in one line what a codec complained about, without addresses or paths of the build."""
    text = error.err if isinstance(error, cv2.error) and error.err else str(error)
    text = re.sub(r"<?[\w.]+ object at 0x[0-9a-f]+>?", "the data", " ".join(text.split()))
    return text or type(error).__name__


def translate_encoding(error: Exception, facts: SourceFacts) -> ImageError:
    """Turn an exception raised after decoding into `encode.failed`, or `decode.memory` for want of memory."""
    if isinstance(error, ImageError):
        return translate(error, facts)
    code = ErrorCode.DECODE_MEMORY if is_out_of_memory(error) else ErrorCode.ENCODE_FAILED
    return ImageError(code, describe(error), facts)
