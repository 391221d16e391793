import pytest

from darkroom.tasks.errors import ErrorCode
from darkroom.tasks.imaging.formats.jpeg2000 import Jpeg2000Image
from tests.fuzz.samples import samples
from tests.tasks.imaging.reference import failure


@pytest.mark.parametrize("name", ["jpeg2000/tiles", "jpeg2000/rgb", "jpeg2000/codestream"])
def test_a_missing_end_is_detected(name):
    data = samples()[name]
    assert not Jpeg2000Image(data).is_cut()
    assert Jpeg2000Image(data[:-3]).is_cut() and Jpeg2000Image(data[: len(data) // 2]).is_cut()


def test_a_missing_tile_is_truncated_with_facts():
    data = samples()["jpeg2000/tiles"]
    first = data.index(b"\xff\x90")
    code, error = failure(data[:first] + data[data.index(b"\xff\x90", first + 12) :])
    assert code is ErrorCode.DECODE_TRUNCATED and error.facts.width == 61
