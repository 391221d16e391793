import gzip
import io
import tarfile
import zipfile

import pytest

from darkroom.tasks.errors import MAX_MESSAGE_LENGTH, ErrorCode
from tests.tasks.imaging.reference import encoded, failure, picture


def zipped():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.png", encoded(picture(), "PNG"))
    return buffer.getvalue()


def tarred():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.png"))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "name", "remedy"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n", "Git LFS pointer", "git lfs pull"),
        (b"/annex/objects/SHA256E-s9--ab.jpg\n", "git-annex pointer", "git annex get"),
        (b"../../.git/annex/objects/aa/bb/SHA256E-s9--ab.jpg", "git-annex pointer", "git annex get"),
        (b"<!DOCTYPE html><html>429 Too Many Requests</html>", "HTML", "download"),
        (b"\xef\xbb\xbf\n <!-- saved --> <HTML lang=en>", "HTML", "download"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML", "download"),
        (b'{"error": "not found"}', "JSON", "download"),
        (gzip.compress(encoded(picture(), "JPEG")), "gzip", "unpack"),
        (zipped(), "zip", "unpack"),
        (tarred(), "tar", "unpack"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "PDF", "extract"),
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41", "video", "frames"),
        (b"\0\0\0\x14ftypqt  \0\0\2\0qt  ", "video", "frames"),
        (b"\x1a\x45\xdf\xa3\x01\0\0\0\0\0\0\x1f\x42\x86", "video", "frames"),
        (b"RIFF\x24\0\0\0AVI LIST", "video", "frames"),
        (b"\0\x05\x16\x07\0\x02\0\0Mac OS X        ", "AppleDouble", "leave"),
        (bytes(5000), "zero bytes", "copy it again"),
        ("grüße aus köln".encode() * 500, "text", ""),
    ],
)
def test_errors_about_other_files_name_their_kind_and_the_remedy(data, name, remedy):
    code, error = failure(data)
    assert code is ErrorCode.DECODE_UNKNOWN_FORMAT and error.facts is None
    assert name in error.message and remedy in error.message and len(error.message) <= MAX_MESSAGE_LENGTH


@pytest.mark.parametrize("data", [b"\x9c\x02\xfe\x81" * 90, b"\xff\xd8"])
def test_an_unknown_file(data):
    code, error = failure(data)
    assert code is ErrorCode.DECODE_UNKNOWN_FORMAT and error.message == "not an image of any known format"


@pytest.mark.parametrize(
    ("data", "name", "remedy"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC", "convert"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1miaf", "heif", "convert"),
        (b"8BPS\0\x01" + bytes(40), "psd", "export"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "eps", "draw"),
        (b"<?xml version='1.0'?><svg xmlns='x'/>", "svg", "draw"),
        (b"<?xml version='1.0'?>\n<!-- x -->\n<!DOCTYPE svg PUBLIC '-//W3C' 'x'>\n<svg:svg/>", "svg", "draw"),
        (b"<!DOCTYPE svg PUBLIC 'x' 'y' [\n<!ENTITY a 'b'>\n]>\n<svg/>", "svg", "draw"),
        (b"\n <svg>", "svg", "draw"),
        (b"\xff\x0a" + bytes(20), "jpegxl", "convert"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(20), "jpegxl", "convert"),
        (b"II*\0\x10\0\0\0CR\x02\0" + bytes(40), "cr2", "raw converter"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "cr3", "raw converter"),
        (b"FUJIFILMCCD-RAW 0201FF", "raf", "raw converter"),
        (b"IIU\0\x18\0\0\0", "rw2", "raw converter"),
        (b"IIRO\x08\0\0\0", "orf", "raw converter"),
        (bytes(128) + b"DICM" + bytes(9), "dcm", "convert"),
        (b"gimp xcf v011\0", "xcf", "convert"),
    ],
)
def test_errors_about_other_image_formats_name_them_and_the_remedy(data, name, remedy):
    code, error = failure(data)
    assert code is ErrorCode.DECODE_UNSUPPORTED
    assert name in error.message and remedy in error.message and len(error.message) <= MAX_MESSAGE_LENGTH
