import io
import struct

import numpy as np
import pytest
from PIL import Image

from darkroom.tasks.errors import ErrorCode
from tests.fuzz.samples import samples
from tests.tasks.imaging.reference import failure, lossless


def test_rle_and_packed_pixels_are_those_of_pillow():
    for name in ("bmp/rle", "bmp/555", "bmp/palette"):
        with Image.open(io.BytesIO(samples()[name])) as image:
            expected = np.array(image.convert("RGB"))
        assert np.array_equal(lossless(samples()[name], width=61, height=43), expected), name


@pytest.mark.parametrize("header", [12, 16, 40, 52, 56, 64, 108, 124, 41])
def test_a_bitmap_is_recognised_by_the_size_of_its_second_header(header):
    data = b"BM" + bytes(12) + struct.pack("<I", header)
    assert failure(data)[0] is (ErrorCode.DECODE_UNKNOWN_FORMAT if header == 41 else ErrorCode.DECODE_TRUNCATED)
