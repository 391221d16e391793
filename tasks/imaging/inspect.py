"""Look at an output again: whether every pixel of it can be decoded, and what it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from darkroom.tasks.errors import ImageError
from darkroom.tasks.imaging.container import declared_size
from darkroom.tasks.imaging.facts import Inspected, unlimited
from darkroom.tasks.imaging.failures import translate
from darkroom.tasks.imaging.general import decode_image, open_image
from darkroom.tasks.imaging.jpeg import decode_jpeg
from darkroom.tasks.imaging.jpeg_header import read_header
from darkroom.tasks.imaging.sniff import sniff_format
from darkroom.tasks.imaging.transform import recognise

if TYPE_CHECKING:
    from darkroom.tasks.imaging.facts import Allow, Decoded, SourceFacts

NO_LIMIT = 1 << 62
"""An output is as large as a recipe made it."""


def inspect_image(data: bytes, allow: Allow = unlimited) -> Inspected:
    """Decode an image file to its last pixel, and return what it is; raises `ImageError`."""
    image_format = recognise(data)
    facts: SourceFacts | None = None
    try:
        if image_format == "jpeg":
            header = read_header(data)
            facts = header.facts
            allow(facts.width * facts.height)
            decoded = decode_jpeg(data, header, (header.width, header.height), gray=False, keep_truncated=False)
        else:
            opened = open_image(image_format, data, NO_LIMIT, allow)
            facts = opened.facts
            decoded = decode_image(opened, keep_truncated=False)
    except Exception as error:
        raise translate(error, facts) from error
    return _inspected(image_format, decoded)


def _inspected(image_format: str, decoded: Decoded) -> Inspected:
    height, width, *channels = decoded.pixels.shape
    return Inspected(image_format, width, height, *(channels or [1]))


def describe_bytes(data: bytes) -> str:
    """Say in a few words what a file's bytes seem to be, by its header alone: no decoder sees them."""
    image_format = sniff_format(data)
    if image_format is None:
        return "no image"
    if image_format == "jpeg":
        try:
            facts = read_header(data).facts
        except ImageError:
            return "jpeg with a broken header"
        size = (facts.width, facts.height)
    else:
        size = declared_size(image_format, data) or (0, 0)
    return f"{image_format}, {size[0]} × {size[1]} pixels" if all(size) else image_format
