from darkroom.tasks.errors import ErrorCode
from darkroom.tasks.imaging.formats.gif import GifImage
from darkroom.tasks.imaging.transform import opened
from tests.fuzz import build
from tests.tasks.imaging.reference import failure


def test_frames_are_counted_by_blocks():
    frame = b"\x2c" + bytes(9) + b"\x02" + b"\x00"
    assert GifImage(b"GIF89a" + bytes(7) + frame * 200_000)._count_frames() == 200_000
    assert GifImage(b"GIF89a")._count_frames() == 1


def test_the_limit_covers_what_the_reader_allocates_for_the_header():
    # Where a GIF's first frame is to be disposed of, its reader makes room for another.
    side = 9000
    disposed = b"\x21\xf9\4\x08\0\0\0\0" + build.gif_frame(side, side, b"\x84\x8f\xa9\x5d\x05")
    data = build.gif_header(side, side) + disposed + b";"
    asked = []
    with opened(data, side * side, asked.append) as (_, facts):
        assert facts.width == side
    assert set(asked) == {side * side}
    assert failure(data, max_pixels=side * side - 1)[0] is ErrorCode.DECODE_TOO_MANY_PIXELS
