"""Identify files that are not read, by signatures in their first bytes: other image formats, and no images at all.

The error message names the kind of file and the remedy.
"""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

from darkroom.tasks.errors import ErrorCode
from darkroom.tasks.imaging.formats.isobmff import brands
from darkroom.tasks.imaging.records import TransformError

HEIF_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"})
CAMERA_RAW = "develop it to TIFF or JPEG with a raw converter first"
CONVERT = "convert it to PNG, TIFF or JPEG first"
DRAWING = "draw it as PNG first, in the size that you need"
UNPACK = "unpack it first"
NOT_A_PICTURE = "leave it out"
SERVER_ANSWER = "if a server sent it instead of the image, download that again"
VIDEO = "extract its frames first"


class Foreign(NamedTuple):
    """A kind of file that isn't read: its name in messages, a pattern for its first bytes, and the remedy."""

    name: str
    signature: re.Pattern[bytes]
    remedy: str


def _table(*rows: tuple[str, bytes, str]) -> tuple[Foreign, ...]:
    return tuple(Foreign(name, re.compile(pattern, re.S), remedy) for name, pattern, remedy in rows)


START_OF_TEXT = rb"(?:\xef\xbb\xbf)?\s*"
"""Matches an optional byte order mark and white space."""

PROLOGUE = START_OF_TEXT + (
    rb"(?>(?i:<\?xml.{0,500}?\?>|<!--.{0,2000}?-->|<!DOCTYPE(?! html)[^\[>]{0,1000}(?:\[.{0,3000}?\]\s*)?>)\s*)*+"
)
"""Matches everything that may precede the first element of an XML or HTML document."""

UNREAD_IMAGES = _table(
    ("a JPEG XL (jpegxl) image", rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", CONVERT),
    ("a Photoshop document (psd)", rb"8BPS", "export it as PNG, TIFF or JPEG first"),
    ("an SVG drawing (svg)", PROLOGUE + rb"<(?:\w+:)?svg\b", DRAWING),
    ("an Encapsulated PostScript drawing (eps)", rb"%!PS-Adobe|\xc5\xd0\xd3\xc6", DRAWING),
    ("a Windows metafile (wmf, emf)", rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF", DRAWING),
    ("an OpenEXR image (exr)", rb"\x76\x2f\x31\x01", CONVERT),
    ("a Radiance image (hdr)", rb"#\?(?:RADIANCE|RGBE)", CONVERT),
    ("a QOI image (qoi)", rb"qoif", CONVERT),
    ("a JPEG XR image (jxr)", rb"II\xbc", CONVERT),
    ("a BPG image (bpg)", rb"BPG\xfb", CONVERT),
    ("a GIMP document (xcf)", rb"gimp xcf", CONVERT),
    ("a DirectDraw surface (dds)", rb"DDS \x7c", CONVERT),
    ("a KTX texture (ktx)", rb"\xabKTX ", CONVERT),
    ("a Macintosh icon (icns)", rb"icns", CONVERT),
    ("a Windows cursor (cur)", rb"\0\0\x02\0[^\0]", CONVERT),
    ("a DICOM image (dcm)", rb".{128}DICM", CONVERT),
    ("a FITS image (fits)", rb"SIMPLE  =", CONVERT),
    ("a DjVu document (djvu)", rb"AT&TFORM", CONVERT),
    ("a Canon camera raw file (cr2)", rb"II\*\0.{4}CR", CAMERA_RAW),
    ("a Canon camera raw file (crw)", rb"II\x1a\0\0\0HEAPCCDR", CAMERA_RAW),
    ("a Canon camera raw file (cr3)", rb".{4}ftypcrx ", CAMERA_RAW),
    ("an Olympus camera raw file (orf)", rb"IIR[OS]|MMOR", CAMERA_RAW),
    ("a Panasonic camera raw file (rw2)", rb"IIU\0", CAMERA_RAW),
    ("a Fujifilm camera raw file (raf)", rb"FUJIFILMCCD-RAW", CAMERA_RAW),
    ("a Sigma camera raw file (x3f)", rb"FOVb", CAMERA_RAW),
    ("a Minolta camera raw file (mrw)", rb"\0MRM", CAMERA_RAW),
    ("a Phase One camera raw file (iiq)", rb"(?:II\*\0|MM\0\*).{4}(?:IIII|MMMM)", CAMERA_RAW),
)
"""Image formats that are not read: `decode.unsupported`."""

NOT_IMAGES = _table(
    ("a Git LFS pointer", rb"version https?://(?:git-lfs\.|hawser\.|git-media)", "run git lfs pull"),
    ("a git-annex pointer", rb"(?:\.\./)*(?:\.git)?/?annex/objects/", "run git annex get"),
    ("an HTML page", PROLOGUE + rb"(?i:<(?:!DOCTYPE html|html|head|body|script)\b)", SERVER_ANSWER),
    ("an XML document", START_OF_TEXT + rb"(?i:<(?:\?xml|error)\b)", SERVER_ANSWER),
    ("a JSON document", START_OF_TEXT + rb'(?:\{\s*(?:"|\})|\[\s*[\[{"])', SERVER_ANSWER),
    ("a PDF document", rb".{0,1000}?%PDF-", "extract its images or pages first"),
    ("a PostScript document", rb"%!", "extract its images or pages first"),
    ("a gzip archive", rb"\x1f\x8b", UNPACK),
    ("a zip archive, or a document or app packed as one", rb"PK(?:\x03\x04|\x05\x06|\x07\x08)", UNPACK),
    ("a bzip2 archive", rb"BZh[1-9]", UNPACK),
    ("an xz archive", rb"\xfd7zXZ\0", UNPACK),
    ("a Zstandard archive", rb"\x28\xb5\x2f\xfd", UNPACK),
    ("a 7z archive", rb"7z\xbc\xaf\x27\x1c", UNPACK),
    ("a RAR archive", rb"Rar!\x1a\x07", UNPACK),
    ("a tar archive", rb".{257}ustar", UNPACK),
    ("a video (MP4, QuickTime)", rb".{4}(?:ftyp|moov|wide|mdat)", VIDEO),
    ("a video (Matroska, WebM)", rb"\x1a\x45\xdf\xa3", VIDEO),
    ("a video (AVI)", rb"RIFF.{4}AVI ", VIDEO),
    ("a video (MPEG)", rb"\0\0\x01[\xb3\xba]|\x47.{187}\x47", VIDEO),
    ("a video (Windows Media)", rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", VIDEO),
    ("a video (Flash)", rb"FLV\x01", VIDEO),
    ("a video or sound (Ogg)", rb"OggS", NOT_A_PICTURE),
    ("a sound", rb"ID3|fLaC|RIFF.{4}WAVE", NOT_A_PICTURE),
    ("macOS metadata of another file (AppleDouble)", rb"\0\x05\x16[\0\x07]", NOT_A_PICTURE),
    ("an old Office document or Thumbs.db", rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", NOT_A_PICTURE),
    ("a program", rb"\x7fELF|MZ|\xcf\xfa\xed\xfe|#!", NOT_A_PICTURE),
    ("a NumPy array", rb"\x93NUMPY", CONVERT),
    ("an HDF5 file", rb"\x89HDF\r\n\x1a\n", "export its images first"),
    ("a Parquet file", rb"PAR1", "export its images first"),
    ("an SQLite database", rb"SQLite format 3\0", NOT_A_PICTURE),
)
"""Files that are not images: `decode.unknown_format`."""

TEXT = re.compile(rb"[\t\n\r\f\x20-\x7e\x80-\xff]+")


def refusal(head: bytes) -> TransformError:
    """Return the error for a file that no format of `FORMATS` matches.

    `decode.unsupported` for an image of another format, else `decode.unknown_format`; the message names the kind of
    file, if its first bytes `head` reveal it, and the remedy.
    """
    image = _first_match(UNREAD_IMAGES, head)
    if image is None and brands(head) & HEIF_BRANDS:
        image = Foreign("a HEIC or HEIF (heif) image, as iPhones take them", re.compile(b""), CONVERT)
    if image:
        message = f"this is {image.name}, which is not read here: {image.remedy}"
        return TransformError(ErrorCode.DECODE_UNSUPPORTED, message)
    other = _first_match(NOT_IMAGES, head)
    if other:
        return TransformError(ErrorCode.DECODE_UNKNOWN_FORMAT, f"not an image but {other.name}: {other.remedy}")
    return TransformError(ErrorCode.DECODE_UNKNOWN_FORMAT, f"not an image of any known format{_hint(head)}")


def _first_match(table: tuple[Foreign, ...], head: bytes) -> Foreign | None:
    return next((each for each in table if each.signature.match(head)), None)


def _hint(head: bytes) -> str:
    if not any(head):
        return ": it begins with zero bytes only, as if it was never written; copy it again"
    return ": it is text" if TEXT.fullmatch(head) and _is_utf8(head) else ""


def _is_utf8(head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut
    except UnicodeDecodeError:
        return False
    return True
