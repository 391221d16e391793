"""Errors about image files: make them, and translate exceptions of decoders and encoders into them."""

from __future__ import annotations

import re
from collections.abc import Callable

import cv2

from darkroom.tasks.errors import ErrorCode, ImageError
from darkroom.tasks.imaging.limits import is_recordable
from darkroom.tasks.imaging.records import SourceFacts, TransformError

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
"""Damage, although `UNSUPPORTED` matches too."""

READABLE = re.compile(r"^(Unsupported [A-Z]|Corrupt JPEG|Invalid JPEG|Inconsistent progression|.*\bJPEG (data|file)\b)")
"""Decoders' messages that describe the file, and so are worth showing to users."""

OUT_OF_MEMORY = -4
"""OpenCV's `StsNoMem`."""


def corrupt(message: str) -> ImageError:
    """Return a `decode.corrupt` error."""
    return ImageError(ErrorCode.DECODE_CORRUPT, message)


def truncated(message: str) -> ImageError:
    """Return a `decode.truncated` error."""
    return ImageError(ErrorCode.DECODE_TRUNCATED, message)


def unsupported(message: str) -> ImageError:
    """Return a `decode.unsupported` error."""
    return ImageError(ErrorCode.DECODE_UNSUPPORTED, message)


def translate(error: Exception, facts: SourceFacts | None, is_cut: Callable[[], bool] | None = None) -> TransformError:
    """Return the `TransformError` for an exception raised while a file was decoded.

    Args:
        error: the exception.
        facts: what the source's header says; None if it could not be read.
        is_cut: returns whether the file is shorter than its own structure says; overrides the decoder's message.
    """
    code = code_of(error, is_cut)
    message = error.message if isinstance(error, ImageError) else explain(error, code, facts.format if facts else "")
    return TransformError(code, message, facts if facts and is_recordable(facts) else None)


def translate_encoding(error: Exception, facts: SourceFacts) -> TransformError:
    """Return the `TransformError` for an exception raised after decoding.

    Its code is that of an `ImageError`, `decode.memory` if memory ran out, or else `encode.failed`.
    """
    if isinstance(error, ImageError) or is_out_of_memory(error):
        return translate(error, facts)
    return TransformError(ErrorCode.ENCODE_FAILED, describe(error), facts)


def code_of(error: Exception, is_cut: Callable[[], bool] | None = None) -> ErrorCode:
    """Return the error code for a decoder's exception; arguments as for `translate`."""
    if isinstance(error, ImageError):
        return error.code
    if is_out_of_memory(error):
        return ErrorCode.DECODE_MEMORY
    text = str(error)
    if (is_cut and is_cut()) or isinstance(error, EOFError) or TRUNCATED.search(text):
        return ErrorCode.DECODE_TRUNCATED
    if DAMAGED.search(text):
        return ErrorCode.DECODE_CORRUPT
    if isinstance(error, NotImplementedError) or UNSUPPORTED.search(text):
        return ErrorCode.DECODE_UNSUPPORTED
    return ErrorCode.DECODE_CORRUPT


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an exception means that memory ran out."""
    return isinstance(error, MemoryError) or (isinstance(error, cv2.error) and error.code == OUT_OF_MEMORY)


def explain(error: Exception, code: ErrorCode, image_format: str) -> str:
    """Return a message for users about a decoder's exception, whose own text often only developers understand.

    `image_format` is the format's `name`; empty if the header could not be read.
    """
    name = image_format.upper() or "image"
    if code is ErrorCode.DECODE_MEMORY:
        return "there was not enough memory to decode the picture"
    if code is ErrorCode.DECODE_TRUNCATED:
        return f"the {name} ends before its picture does: copy or download it again"
    detail = f" ({describe(error)})" if READABLE.search(str(error)) else ""
    if code is ErrorCode.DECODE_UNSUPPORTED:
        return f"this kind of {name} is not read here{detail}: save it as PNG, TIFF or JPEG first"
    is_of_header = isinstance(error, SyntaxError) or not image_format
    return (
        f"the {name} is damaged: its {'header contradicts itself' if is_of_header else 'pixels make no sense'}{detail}"
    )


def describe(error: Exception) -> str:
    """Return an exception's message as one line, without memory addresses and paths of the codec's source files."""
    text = error.err if isinstance(error, cv2.error) and error.err else str(error)
    text = re.sub(r"<?[\w.]+ object at 0x[0-9a-f]+>?", "the data", " ".join(text.split()))
    return text or type(error).__name__
