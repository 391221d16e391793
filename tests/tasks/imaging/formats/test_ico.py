import struct

import numpy as np

from darkroom.tasks.errors import ErrorCode
from tests.fuzz import build
from tests.tasks.imaging.reference import SIZE, encoded, facts_of, failure, lossless, picture, run


def test_the_largest_picture_is_read():
    data = encoded(picture(64, 64), "ICO", sizes=[(16, 16), (48, 48)])
    facts = facts_of(data)
    assert (facts.format, facts.width, facts.height) == ("ico", 48, 48)
    assert run(data, **SIZE).channels == 3


def test_a_wrong_checksum_counts_only_in_the_picture_that_is_read():
    large, small = encoded(picture(16, 16), "PNG"), encoded(picture(8, 8), "PNG")
    broken = small[:40] + bytes([small[40] ^ 1]) + small[41:]
    table = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(large), 38)
    table += struct.pack("<BBBBHHII", 8, 8, 0, 0, 1, 32, len(broken), 38 + len(large))
    icon = b"\0\0\1\0\2\0" + table + large + broken
    assert np.array_equal(lossless(icon, width=16, height=16), picture(16, 16))
    assert failure(build.ico([broken]))[0] is ErrorCode.DECODE_CORRUPT
