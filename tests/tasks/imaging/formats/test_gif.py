import struct

import numpy as np
import pytest
from PIL import Image

from darkroom.tasks.errors import ErrorCode
from darkroom.tasks.imaging.formats.gif import GifImage
from darkroom.tasks.imaging.transform import opened
from tests.fuzz import build
from tests.tasks.imaging.reference import SIZE, encoded, failure, lossless, picture, pixels_of, run


def test_frames_are_counted_by_blocks():
    frame = b"\x2c" + bytes(9) + b"\x02" + b"\x00"
    assert GifImage(b"GIF89a" + bytes(7) + frame * 200_000)._count_frames() == 200_000
    assert GifImage(b"GIF89a")._count_frames() == 1


def test_the_limit_covers_what_the_reader_allocates_for_the_header():
    # Pillow's reader allocates a second picture if the first frame has a disposal method.
    side = 9000
    disposed = b"\x21\xf9\4\x08\0\0\0\0" + build.gif_frame(side, side, b"\x84\x8f\xa9\x5d\x05")
    data = build.gif_header(side, side) + disposed + b";"
    asked = []
    with opened(data, side * side, asked.append) as (_, facts):
        assert facts.width == side
    assert set(asked) == {side * side}
    assert failure(data, max_pixels=side * side - 1)[0] is ErrorCode.DECODE_TOO_MANY_PIXELS


@pytest.mark.parametrize(("colors", "transparency"), [("palette", None), ("palette", 3), ("gray", None), ("gray", 100)])
def test_pixels_outside_the_first_frame_are_transparent(colors, transparency):
    image = Image.fromarray(picture()).quantize(8) if colors == "palette" else Image.fromarray(picture()[:, :, 0])
    options = {} if transparency is None else {"transparency": transparency}
    data = bytearray(encoded(image, "GIF", **options))
    covering = lossless(bytes(data), **SIZE)
    data[6:10] = struct.pack("<HH", 150, 100)
    frame = GifImage(bytes(data))._frames[0]
    data[frame + 1 : frame + 5] = struct.pack("<HH", 20, 10)
    out = lossless(bytes(data), width=150, height=100)
    alpha = np.zeros((100, 150), np.uint8)
    alpha[10:90, 20:140] = covering[:, :, 3] if transparency else 255
    assert np.array_equal(out[:, :, 3], alpha)
    assert np.array_equal(out[10:90, 20:140][:, :, :3], covering[:, :, :3])
    on_red = pixels_of(run(bytes(data), width=150, height=100, background="#ff0000", quality=100))
    assert np.abs(on_red[2, 2].astype(int) - [255, 0, 0]).max() < 5
