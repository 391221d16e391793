import re
from itertools import pairwise

import numpy as np
import pytest

from darkroom.tasks.errors import ErrorCode
from darkroom.tasks.imaging.formats.jpeg_structure import (
    SOS,
    Frame,
    end_of_scans,
    lacks_scans,
    walk_scans,
    walk_segments,
)
from tests.fuzz import build
from tests.fuzz.samples import samples
from tests.tasks.imaging.reference import failure, jpeg, mean_difference, picture, pixels_of, run

PROGRESSIVE = jpeg(picture(), progressive=True)
END = b"\xff\xd9"


def first_scan(data):
    *_, scan = walk_segments(data)
    return scan


def starts_of_scans(data):
    return [scan.start - 4 for scan in walk_scans(data, first_scan(data))]


@pytest.mark.parametrize("name", ["jpeg/420", "jpeg/restarts", "jpeg/gray", "jpeg/cmyk", "jpeg/lossless"])
def test_segments_of_sound_files_follow_each_other(name):
    data = samples()[name]
    segments = list(walk_segments(data))
    assert segments[-1].marker == SOS and not any(segment.after_junk for segment in segments)
    assert segments[0].start == 6
    assert all(after.start == before.end + 4 for before, after in pairwise(segments))
    assert end_of_scans(data, segments[-1]) == len(data) - 2
    assert len(starts_of_scans(data)) == 1


def test_markers_within_junk_do_not_begin_segments():
    data = jpeg(picture())
    position = data.index(b"\xff\xc0")
    junk = b"junk\xff\x9b\x00\x05\xff\xc4\x00\x13junk\xff\xd9\xff\xe1\xff\xff\xff\xda\x00\x08"
    found = list(walk_segments(data[:position] + junk + data[position:]))
    assert [segment.marker for segment in found] == [segment.marker for segment in walk_segments(data)]
    assert [segment.marker for segment in found if segment.after_junk] == [0xC0]


def test_every_scan_of_a_progressive_file_is_found():
    assert len(starts_of_scans(PROGRESSIVE)) == PROGRESSIVE.count(b"\xff\xda") == 10
    assert end_of_scans(PROGRESSIVE, first_scan(PROGRESSIVE)) == len(PROGRESSIVE) - 2


@pytest.mark.parametrize("kept", range(1, 10))
def test_a_progressive_file_that_lacks_scans_is_truncated(kept):
    cut = PROGRESSIVE[: starts_of_scans(PROGRESSIVE)[kept]]
    # The next scan's tables may be present, too; they hold no pixels.
    for data in (cut + END, cut[: cut.rindex(b"\xff\xc4")] + END if kept > 1 else cut + END):
        code, error = failure(data)
        assert code is ErrorCode.DECODE_TRUNCATED and error.facts.width == 120
        result = run(data, damage="tolerant")
        assert result.warnings == ("truncated",)


def test_any_missing_scan_is_detected():
    starts = [*starts_of_scans(PROGRESSIVE), len(PROGRESSIVE) - 2]
    for start, end in pairwise(starts[1:]):
        tables = b"".join(re.findall(rb"\xff\xc4..[^\xff]*", PROGRESSIVE[start:end], re.DOTALL))
        data = PROGRESSIVE[:start] + tables + PROGRESSIVE[end:]
        assert failure(data)[0] in {ErrorCode.DECODE_TRUNCATED, ErrorCode.DECODE_CORRUPT}


def test_tolerant_decoding_keeps_the_scans_of_a_cut_progressive_file():
    data = jpeg(picture(400, 300), progressive=True)
    cut = data[: starts_of_scans(data)[4]] + END
    kept, whole = (pixels_of(run(each, width=400, height=300, format="png", damage="tolerant")) for each in (cut, data))
    assert 0 < mean_difference(kept, whole) < 8


def with_only_the_first_scan(data):
    """Return a gray JPEG whose header states three components, so that the second and third lack their scans."""
    frame = data.index(b"\xff\xc0")
    end = frame + 2 + int.from_bytes(data[frame + 2 : frame + 4], "big")
    payload = data[frame + 4 : frame + 9] + bytes((3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0))
    return data[:frame] + build.jpeg_segment(0xC0, payload) + data[end:]


def test_a_sequential_file_that_lacks_the_scans_of_its_colours_is_truncated():
    data = jpeg(picture()[:, :, 0])
    lacking = with_only_the_first_scan(data)
    assert failure(lacking)[0] is ErrorCode.DECODE_TRUNCATED
    scan = first_scan(lacking)
    frame = Frame(0xC0, 8, 80, 120, 3, bytes((1, 2, 3)), bytes((0x11,) * 3))
    assert lacks_scans(lacking, frame, scan)
    whole = lacking[:-2]
    for component in (2, 3):
        body = bytearray(lacking[scan.start - 4 : -2])
        body[5] = component
        whole += bytes(body)
    whole += END
    assert not lacks_scans(whole, frame, scan)
    assert run(whole).warnings == ()


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"restart_marker_rows": 1}])
def test_sound_progressive_files_are_complete(options):
    for pixels in (picture(), picture()[:, :, 0], np.zeros((8, 8, 3), np.uint8)):
        assert run(jpeg(pixels, progressive=True, **options)).warnings == ()


@pytest.mark.parametrize(
    ("components", "sampling", "unit"),
    [
        (3, (0x22, 0x11, 0x11), (16, 16)),
        (3, (0x21, 0x11, 0x11), (16, 8)),
        (1, (0x22,), (8, 8)),
        (4, (0x11,) * 4, (8, 8)),
    ],
)
def test_the_size_of_a_minimum_coded_unit(components, sampling, unit):
    assert Frame(0xC0, 8, 1, 1, components, b"", bytes(sampling)).unit == unit
