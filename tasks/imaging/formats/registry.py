"""The list of formats, and which of them a file is. A file's name plays no part in this."""

from __future__ import annotations

import re

from PIL.JpegImagePlugin import JpegImageFile

from darkroom.tasks.errors import ErrorCode
from darkroom.tasks.imaging.formats.avif import AvifImage
from darkroom.tasks.imaging.formats.base import EncodedImage
from darkroom.tasks.imaging.formats.bmp import BmpImage
from darkroom.tasks.imaging.formats.gif import GifImage
from darkroom.tasks.imaging.formats.ico import IcoImage
from darkroom.tasks.imaging.formats.isobmff import brands
from darkroom.tasks.imaging.formats.jpeg import JpegImage
from darkroom.tasks.imaging.formats.jpeg2000 import Jpeg2000Image
from darkroom.tasks.imaging.formats.netpbm import NetpbmImage
from darkroom.tasks.imaging.formats.png import PngImage
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
)
"""The formats that are read."""

PILLOW_NAMES = tuple(getattr(each, "reader", JpegImageFile).format for each in FORMATS)
"""Pillow's names of the formats, for `Image.open`: Pillow would pass some of the others to external programs."""

UNREAD = {
    "jpegxl": re.compile(rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n"),
    "psd": re.compile(rb"8BPS"),
    "eps": re.compile(rb"%!PS-Adobe|\xc5\xd0\xd3\xc6"),
    "exr": re.compile(rb"\x76\x2f\x31\x01"),
    "hdr": re.compile(rb"#\?RADIANCE"),
    "qoi": re.compile(rb"qoif"),
    "svg": re.compile(rb"<svg|<\?xml(?s:.{0,1015}?)<svg"),
}
"""Formats that are recognised only so that the error can name them. HEIF is another."""

HEIF_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"})

SNIFFED_BYTES = 4096


def recognise(data: bytes | memoryview) -> type[EncodedImage]:
    """Return the format of an image file by its first bytes.

    Raises `TransformError`: `source.empty`, `decode.unknown_format`, or `decode.unsupported` for a known format that
    isn't read.
    """
    if not data:
        raise TransformError(ErrorCode.SOURCE_EMPTY, "the file is empty")
    head = bytes(data[:SNIFFED_BYTES])
    for image_format in FORMATS:
        if image_format.matches(head):
            return image_format
    unread = [name for name, signature in UNREAD.items() if signature.match(head)]
    if unread or brands(head) & HEIF_BRANDS:
        message = f"{unread[0] if unread else 'heif'} is not among the formats read here"
        raise TransformError(ErrorCode.DECODE_UNSUPPORTED, message)
    raise TransformError(ErrorCode.DECODE_UNKNOWN_FORMAT, "not an image of any known format")
