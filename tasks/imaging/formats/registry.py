"""The list of formats, and recognising them by a file's first bytes, whatever its name is."""

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
"""The formats that are read, in the order of matching: TGA has no signature, so it comes last."""

PILLOW_NAMES = tuple(getattr(each, "reader", JpegImageFile).format for each in FORMATS)
"""Pillow's names of `FORMATS`, for `Image.open`: Pillow passes files of some other formats to external programs."""

SNIFFED_BYTES = 4096


def recognise(data: bytes | memoryview) -> type[EncodedImage]:
    """Return the class of `FORMATS` for a file; raise `TransformError`: `source.empty`, or the `refusal` of others."""
    if not data:
        raise TransformError(ErrorCode.SOURCE_EMPTY, "the file is empty")
    head = bytes(data[:SNIFFED_BYTES])
    for image_format in FORMATS:
        if image_format.matches(head):
            return image_format
    raise refusal(head)
