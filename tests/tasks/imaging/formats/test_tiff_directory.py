import struct

import numpy as np
import pytest

from darkroom.tasks.errors import ErrorCode
from tests.fuzz import build
from tests.tasks.imaging.reference import SIZE, failure, lossless, picture, pixels_of, run


def pages(*pictures):
    """Return a TIFF of these pictures, each an array and its additional tags."""
    body, directories = b"", []
    for pixels, more in pictures:
        entries = {256: [pixels.shape[1]], 257: [pixels.shape[0]], 258: [8] * 3, 259: [1], 262: [2], 277: [3]}
        entries |= {273: [8 + len(body)], 278: [pixels.shape[0]], 279: [pixels.size]} | more
        directories.append([(tag, 4, values) for tag, values in entries.items()])
        body += pixels.tobytes() + b"\0" * (pixels.size % 2)
    return build.tiff(directories, body)


@pytest.mark.parametrize("tags", [{254: [1]}, {254: [5]}, {254: [4]}, {255: [2]}])
def test_a_reduced_copy_is_not_the_picture(tags):
    small, large = picture(20, 14, seed=1), picture()
    result = run(pages((small, tags), (large, {254: [0], 274: [1]})), **SIZE, format="png")
    assert np.array_equal(pixels_of(result), large) and result.facts.frames == 2 and result.warnings == ()
    assert (result.facts.width, result.facts.height) == (120, 80)


def test_the_first_page_is_the_picture_if_it_is_unmarked_or_all_are_reduced():
    small, large = picture(20, 14, seed=1), picture()
    for tags in ({254: [1]}, {}, {254: [2]}):
        out = lossless(pages((small, tags), (large, {254: [1]})), width=20, height=14)
        assert np.array_equal(out, small)


def test_the_picture_may_be_in_a_sub_directory():
    small, large = picture(20, 14, seed=1), picture()
    data = pages((small, {254: [1], 330: [0]}), (large, {254: [0]}))
    first = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, first)[0]
    link = first + 2 + 12 * count
    position = data.index(struct.pack("<HHI", 330, 4, 1))
    data = data[: position + 8] + data[link : link + 4] + data[position + 12 : link] + bytes(4) + data[link + 4 :]
    assert np.array_equal(lossless(data, **SIZE), large)


@pytest.mark.parametrize(
    ("maker", "tags", "name"),
    [
        (b"NIKON CORPORATION\0", {262: [32803]}, "NEF"),
        (b"SONY\0", {262: [32803]}, "ARW"),
        (b"Unknown\0", {262: [34892]}, "unknown"),
        (b"Canon\0", {50706: [0x04010000]}, "DNG"),
    ],
)
def test_errors_name_camera_raw_formats(maker, tags, name):
    more = [(271, 2, maker), *((tag, 4, values) for tag, values in tags.items())]
    code, error = failure(build.tiff_picture(picture(), more=more))
    assert code is ErrorCode.DECODE_UNSUPPORTED and name in error.message and "raw converter" in error.message
