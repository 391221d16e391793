"""Damaged files with all pixels are repaired, those with missing pixels are not."""

import re

import numpy as np
import pytest
from PIL import Image

from darkroom.tasks.errors import ErrorCode
from tests.fuzz import build
from tests.tasks.imaging.reference import failure, jpeg, lossless, picture, run

JUNK = np.random.default_rng(5).bytes(200)
RESTARTS = re.compile(rb"\xff[\xd0-\xd7]")
SMOOTH = picture(160, 120)


def scan_of(data):
    return data.index(b"\xff\xda")


def same(data, original):
    size = {"width": 160, "height": 120}
    return np.array_equal(lossless(data, **size), lossless(original, **size))


@pytest.mark.parametrize("marker", [0xDB, 0xC0, 0xC4, 0xDA, 0xDD])
@pytest.mark.parametrize("junk", [JUNK, b"junk", b"\xff\x9bxx", b"\x00", b"\xff\xe1\x00\x04abjunk"])
def test_junk_between_segments_is_dropped_with_a_warning(marker, junk):
    data = jpeg(SMOOTH, restart_marker_rows=1)
    position = data.index(bytes((0xFF, marker)))
    damaged = data[:position] + junk + data[position:]
    assert run(damaged).warnings == ("header_repaired",) and same(damaged, data)


def test_junk_at_many_places():
    data = jpeg(SMOOTH, progressive=False)
    damaged = re.sub(rb"\xff(?=[\xdb\xc4\xc0\xda]\x00)", lambda match: JUNK + match[0], data)
    assert len(damaged) > len(data) + 4 * len(JUNK)
    assert run(damaged).warnings == ("header_repaired",) and same(damaged, data)


def test_undefined_scan_parameters_are_repaired():
    data = bytearray(jpeg(picture()))
    scan = scan_of(data)
    length = int.from_bytes(data[scan + 2 : scan + 4], "big")
    data[scan + 2 + length - 3 : scan + 2 + length] = b"\x00\x00\x00"
    result = run(bytes(data))
    assert result.warnings == ("header_repaired",) and result.data == run(jpeg(picture())).data


TRAILERS = {
    "none": b"",
    "half of the marker": b"\xff",
    "zeros": bytes(300),
    "text": b"<html>moved</html>\n" * 100,
    "bytes": JUNK,
    "many bytes": np.random.default_rng(1).bytes(5000),
    "another JPEG": jpeg(picture(30, 20)),
    "a video": b"\x00\x00\x00\x18ftypmp42" + bytes(4000),
}


@pytest.mark.parametrize("trailer", TRAILERS)
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}], ids=str)
def test_a_missing_end_marker_is_forgiven_but_not_missing_pixels(trailer, options):
    data = jpeg(SMOOTH, **options)
    damaged = data[:-2] + TRAILERS[trailer]
    assert "eoi_missing" in run(damaged).warnings and same(damaged, data)
    for part in (0.6, 0.8):
        cut = data[: int(len(data) * part)] + TRAILERS[trailer]
        assert failure(cut)[0] in {ErrorCode.DECODE_TRUNCATED, ErrorCode.DECODE_CORRUPT}


@pytest.mark.parametrize("lost", [3, 4, 5, 8, 20])
def test_zeros_instead_of_the_last_pixels_are_truncated(lost):
    data = jpeg(SMOOTH)
    assert failure(data[:-lost])[0] is ErrorCode.DECODE_TRUNCATED
    assert failure(data[:-lost] + bytes(lost))[0] is ErrorCode.DECODE_TRUNCATED
    assert failure(data[:-lost] + bytes(5000))[0] is ErrorCode.DECODE_TRUNCATED


def test_undecodable_pixels_are_not_dropped_as_trailing_data():
    noise = np.random.default_rng(3).integers(0, 256, (400, 400, 3), np.uint8)
    data, other = jpeg(SMOOTH), jpeg(noise)
    foreign = other[scan_of(other) + 14 : -2]  # entropy-coded data
    middle = (scan_of(data) + len(data)) // 2
    assert failure(data[:middle] + foreign)[0] is ErrorCode.DECODE_TRUNCATED
    assert failure(data[:-2] + foreign[:38] + data[-2:])[0] is ErrorCode.DECODE_CORRUPT


def test_padding_before_the_end_is_forgiven():
    data = jpeg(picture())
    padded = run(data[:-2] + b"\x00" * 9 + data[-2:])
    assert padded.warnings == ("extraneous_data",) and padded.data == run(data).data


MODES = ["RGB", "L", "CMYK"]


@pytest.mark.parametrize("padding", [b"\x00", b"\x00" * 3, b"\x5a", b"\x7f\x7f", bytes(40)])
@pytest.mark.parametrize(
    "options", [{"restart_marker_rows": 1}, {"restart_marker_blocks": 3, "optimize": True}], ids=str
)
@pytest.mark.parametrize("mode", MODES)
def test_padding_before_restart_markers_is_forgiven(mode, options, padding):
    # Flat parts end in zero bytes, which are pixels although they look like the padding.
    pixels = SMOOTH.copy()
    pixels[:, 60:] = 77
    data = jpeg(Image.fromarray(pixels).convert(mode), **options)
    scan = scan_of(data)
    number = iter(range(10_000))
    for every in (1, 2):
        damaged = data[:scan] + RESTARTS.sub(
            lambda match, every=every: padding * (next(number) % every == 0) + match[0], data[scan:]
        )
        warnings = run(damaged).warnings
        # The decoder reads ahead, so it may not report padding of a single byte.
        assert warnings == ("extraneous_data",) or (len(padding) == 1 and warnings == ())
        assert same(damaged, data)


def test_padding_and_a_missing_end():
    data = jpeg(SMOOTH, restart_marker_rows=1)
    scan = scan_of(data)
    damaged = data[:scan] + RESTARTS.sub(lambda match: b"\0\0" + match[0], data[scan:-2])
    assert run(damaged).warnings == ("eoi_missing", "extraneous_data") and same(damaged, data)


def test_fill_bytes_before_markers_add_no_warning():
    data = jpeg(SMOOTH, restart_marker_rows=1)
    scan = scan_of(data)
    filled = data[:scan] + RESTARTS.sub(lambda match: b"\xff\xff" + match[0], data[scan:])
    assert run(filled).warnings == () and same(filled, data)


@pytest.mark.parametrize("damage", ["missing bytes", "a missing interval", "other bytes"])
def test_intervals_with_missing_pixels_are_corrupt(damage):
    data = jpeg(SMOOTH, restart_marker_rows=1)
    third, fourth = [match.start() for match in RESTARTS.finditer(data, scan_of(data))][2:4]
    damaged = {
        "missing bytes": data[: fourth - 9] + data[fourth:],
        "a missing interval": data[:third] + data[fourth:],
        "other bytes": data[:fourth] + b"\x12\x34\x56\x78" * 4 + data[fourth:],
    }[damage]
    assert failure(damaged)[0] is ErrorCode.DECODE_CORRUPT
    padded = data[:third] + b"\0" + damaged[third:]
    assert failure(padded)[0] is ErrorCode.DECODE_CORRUPT
    assert run(padded, damage="tolerant").warnings == ("corrupt",)


@pytest.mark.parametrize("process", build.ARITHMETIC_JPEGS)
def test_an_arithmetic_jpeg_without_its_end_is_truncated(process):
    data = build.ARITHMETIC_JPEGS[process]
    assert run(data).warnings == ()
    # The decoder doesn't notice missing pixels: it takes them for zeros.
    for end in (len(data) - 2, len(data) - 20, len(data) // 2):
        assert failure(data[:end])[0] is ErrorCode.DECODE_TRUNCATED
    assert run(data[:-20], damage="tolerant").warnings == ("truncated",)
