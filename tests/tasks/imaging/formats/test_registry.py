import pytest

from darkroom.tasks.errors import ErrorCode
from darkroom.tasks.imaging.formats.registry import FORMATS
from tests.fuzz.samples import samples
from tests.tasks.imaging.reference import failure


def test_an_empty_file_is_source_empty():
    assert failure(b"")[0] is ErrorCode.SOURCE_EMPTY


@pytest.mark.parametrize("name", samples())
def test_exactly_one_format_matches_a_file(name):
    assert [each.name for each in FORMATS if each.matches(samples()[name])] == [name.partition("/")[0]]
