import pytest

from darkroom.tasks.errors import ErrorCode
from darkroom.tasks.imaging.formats.registry import FORMATS
from tests.fuzz.samples import samples
from tests.tasks.imaging.reference import failure


@pytest.mark.parametrize(
    "data", [b"<html><body>Not found</body></html>", bytes(5000), b"hello", b"\xff\xd8", b"%PDF-1.7"]
)
def test_files_of_no_known_format(data):
    code, error = failure(data)
    assert code is ErrorCode.DECODE_UNKNOWN_FORMAT and error.facts is None


def test_an_empty_file():
    assert failure(b"")[0] is ErrorCode.SOURCE_EMPTY


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "heif"),
        (b"8BPS\0\x01" + bytes(40), "psd"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "eps"),
        (b"<?xml version='1.0'?><svg xmlns='x'/>", "svg"),
        (b"\xff\x0a" + bytes(20), "jpegxl"),
    ],
)
def test_formats_that_are_known_but_not_read(data, name):
    code, error = failure(data)
    assert code is ErrorCode.DECODE_UNSUPPORTED and name in error.message


@pytest.mark.parametrize("name", samples())
def test_one_format_matches_a_file(name):
    assert [each.name for each in FORMATS if each.matches(samples()[name])] == [name.partition("/")[0]]
