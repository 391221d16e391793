import pytest

from darkroom.tasks.errors import ErrorCode
from tests.tasks.imaging.formats.bitmaps import FOUR_COLORS, bitmap
from tests.tasks.imaging.reference import failure, lossless, pixels_of, run


def runs(body, bits=8, **options):
    return bitmap(body, bits, compression=1 if bits == 8 else 2, palette=FOUR_COLORS, header=40, **options)


@pytest.mark.parametrize(
    ("body", "alpha"),
    [
        (b"\2\1\0\0\4\2\0\1", [[255] * 4, [255, 255, 0, 0]]),  # a row that ends early
        (b"\4\1\0\0\0\1", [[0] * 4, [255] * 4]),  # the picture ends early
        (b"\1\1\0\2\2\0\1\1\0\0\4\1\0\1", [[255] * 4, [255, 0, 0, 255]]),  # a skip
        (b"\0\0\4\1\0\1", [[255] * 4, [0] * 4]),  # an empty row
    ],
)
def test_pixels_that_runs_skip_are_transparent(body, alpha):
    result = run(runs(body), width=4, height=2, format="png")
    assert result.warnings == ("rle_gaps",) and pixels_of(result)[:, :, 3].tolist() == alpha


def test_runs_with_4_bits_per_pixel():
    body = b"\4\x12\0\0" + b"\0\4\x31\x02" + b"\0\1"
    out = lossless(runs(body, bits=4), width=4, height=2)
    assert out[1].tolist() == [[0, 255, 0], [0, 0, 255]] * 2
    assert out[0].tolist() == [[9, 9, 9], [0, 255, 0], [255, 0, 0], [0, 0, 255]]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"\5\1\0\1", ErrorCode.DECODE_CORRUPT),  # beyond the row
        (b"\4\1\0\0\4\1\0\0\4\1\0\1", ErrorCode.DECODE_CORRUPT),  # beyond the picture
        (b"\0\2\5\0\0\1", ErrorCode.DECODE_CORRUPT),
        (b"\0\2\0\3\0\1", ErrorCode.DECODE_CORRUPT),
        (b"\4\1\0\0\2\1", ErrorCode.DECODE_TRUNCATED),
        (b"\4\1\0\0\0\4\1\1", ErrorCode.DECODE_TRUNCATED),
    ],
)
def test_damaged_runs_are_refused(body, code):
    found, error = failure(runs(body))
    assert found is code and error.facts.width == 4


def test_runs_without_an_end_are_fine_if_all_pixels_are_there():
    assert run(runs(b"\4\1\0\0\4\2")).warnings == ()


def test_tolerant_decoding_keeps_the_pixels_of_cut_runs():
    result = run(runs(b"\4\1\0\0\2\1"), damage="tolerant", width=4, height=2, format="png")
    assert "truncated" in result.warnings and pixels_of(result)[1, :, :3].tolist() == [[0, 255, 0]] * 4
