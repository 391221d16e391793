"""The list of formats, and which of them a file is. A file's name plays no part in this."""

from __future__ import annotations

from PIL.JpegImagePlugin import JpegImageFile

from darkroom.tasks.errors import ErrorCode
from darkroom.tasks.imaging.formats.avif import AvifImage
from darkroom.tasks.imaging.formats.base import EncodedImage
from darkroom.tasks.imaging.formats.bmp import BmpImage
from darkroom.tasks.imaging.formats.foreign import refusal
from darkroom.tasks.imaging.formats.gif import GifImage
from darkroom.tasks.imaging.formats.ico import IcoImage
from darkroom.tasks.imaging.formats.jpeg import JpegImage
from darkroom.tasks.imaging.formats.jpeg2000 import Jpeg2000Image
from darkroom.tasks.imaging.formats.netpbm import NetpbmImage
from darkroom.tasks.imaging.formats.png import PngImage
from darkroom.tasks.imaging.formats.tga import TgaImage
from darkroom.tasks.imaging.formats.tiff import TiffImage
from darkroom.tasks.imaging.formats.webp import WebpImage
from darkroom.tasks.imaging.records import TransformError

FORMATS: tuple[type[EncodedImage], ...] = (
    JpegImage,
    PngImage,
    GifImage,
    TiffImage,
    Jpeg2000Image,
    WebpImage,
    AvifImage,
    BmpImage,
    IcoImage,
    NetpbmImage,
    TgaImage,
)
"""The formats that are read; TGA, which has no signature, comes last."""

PILLOW_NAMES = tuple(getattr(each, "reader", JpegImageFile).format for each in FORMATS)
"""Pillow's names of the formats, for `Image.open`: Pillow would pass some of the others to external programs."""

SNIFFED_BYTES = 4096


def recognise(data: bytes | memoryview) -> type[EncodedImage]:
    """Return the format of an image file by its first bytes.

    Raises `TransformError`: `source.empty`, or what `refusal` says of a file that isn't read.
    """
    if not data:
        raise TransformError(ErrorCode.SOURCE_EMPTY, "the file is empty")
    head = bytes(data[:SNIFFED_BYTES])
    for image_format in FORMATS:
        if image_format.matches(head):
            return image_format
    raise refusal(head)
