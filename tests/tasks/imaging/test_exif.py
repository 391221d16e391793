import struct

import numpy as np
import pytest

from darkroom.tasks.imaging.exif import apply_orientation, read_orientation, stored_rectangle
from tests.tasks.imaging.reference import (
    SIZE,
    encoded,
    exif_with,
    jpeg,
    lossless,
    mean_difference,
    picture,
    pixels_of,
    run,
    stored,
)


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_are_read(order):
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, 6, 0)
    assert read_orientation(b"Exif\0\0" + head + struct.pack(order + "H", 1) + entry) == 6
    assert read_orientation(head + struct.pack(order + "H", 0)) == 1
    assert read_orientation(head + struct.pack(order + "H", 1) + entry[:7]) is None
    nine = struct.pack(order + "HHIHH", 0x0112, 3, 1, 9, 0)
    assert read_orientation(head + struct.pack(order + "H", 1) + nine) is None


def test_invalid_exif_is_ignored_with_a_warning():
    result = run(jpeg(picture(), exif=b"Exif\0\0nonsense"))
    assert result.warnings == ("exif_invalid",) and result.facts.orientation == 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF", "AVIF", "TIFF tiff_lzw"])
def test_orientation_is_applied_once_in_every_format(name, orientation):
    upright = picture()
    name, _, compression = name.partition(" ")
    options = {"WEBP": {"lossless": True}, "AVIF": {"quality": 95, "subsampling": "4:4:4"}}.get(name, {})
    options |= {"compression": compression} if compression else {}
    data = encoded(stored(upright, orientation), name, exif=exif_with(orientation), **options)
    result = run(data, format="png", **SIZE)
    facts = result.facts
    assert facts.orientation == orientation
    assert (facts.width, facts.height) == ((80, 120) if orientation >= 5 else (120, 80))
    assert mean_difference(pixels_of(result), upright) < 3
    assert result.scale_x == result.scale_y == 1


@pytest.mark.parametrize("method", ["nearest", "linear", "lanczos"])
@pytest.mark.parametrize("box", [(60, 40), (480, 300), (60, 300)])
def test_orientation_with_other_filters_and_enlargement(method, box):
    upright = picture(120, 80)
    for orientation in (5, 8):
        data = encoded(stored(upright, orientation), "PNG", exif=exif_with(orientation))
        recipe = {"width": box[0], "height": box[1], "filter": method}
        assert mean_difference(lossless(data, **recipe), lossless(encoded(upright, "PNG"), **recipe)) < 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rectangle_is_found_in_the_stored_picture(orientation):
    upright = picture(30, 20)
    kept = upright[3:10, 4:19]
    as_stored = np.array(stored(upright, orientation))
    left, top, width, height = stored_rectangle((4, 3, 15, 7), (30, 20), orientation)
    assert np.array_equal(apply_orientation(as_stored[top : top + height, left : left + width], orientation), kept)
