import struct

import numpy as np

from darkroom.tasks.errors import ErrorCode
from tests.fuzz import build
from tests.tasks.imaging.reference import SIZE, encoded, facts_of, failure, lossless, picture, pixels_of, run


def test_the_largest_picture_is_read():
    data = encoded(picture(64, 64), "ICO", sizes=[(16, 16), (48, 48)])
    facts = facts_of(data)
    assert (facts.format, facts.width, facts.height) == ("ico", 48, 48)
    assert run(data, **SIZE).channels == 3


def test_checksums_of_pictures_that_are_not_read_are_ignored():
    large, small = encoded(picture(16, 16), "PNG"), encoded(picture(8, 8), "PNG")
    broken = small[:40] + bytes([small[40] ^ 1]) + small[41:]
    table = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(large), 38)
    table += struct.pack("<BBBBHHII", 8, 8, 0, 0, 1, 32, len(broken), 38 + len(large))
    icon = b"\0\0\1\0\2\0" + table + large + broken
    assert np.array_equal(lossless(icon, width=16, height=16), picture(16, 16))
    assert failure(build.ico([broken]))[0] is ErrorCode.DECODE_CORRUPT


def test_a_bitmap_whose_alpha_is_zero_everywhere_is_opaque():
    pixels = picture(32, 32)
    clear = np.dstack((pixels, np.zeros((32, 32), np.uint8)))
    data = encoded(clear, "ICO", sizes=[(32, 32)], bitmap_format="bmp")
    result = run(data, width=32, height=32, format="png")
    assert result.warnings == ("alpha_ignored",) and np.array_equal(pixels_of(result), pixels)
    as_png = encoded(clear, "ICO", sizes=[(32, 32)])
    assert run(as_png, width=32, height=32, format="png").channels == 4, "the alpha of a PNG is never ignored"


def test_damage_to_a_png_that_affects_no_pixels_adds_a_warning():
    png = encoded(picture(16, 16), "PNG")
    assert run(build.ico([png[:-1] + b"\0"])).warnings == ("chunk_crc",)
