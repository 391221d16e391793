import pytest

from darkroom.tasks.imaging import Sheet, SourceFacts, Tile


@pytest.mark.parametrize(("orientation", "size"), [(1, (30, 20)), (4, (30, 20)), (5, (20, 30)), (8, (20, 30))])
def test_oriented_size(orientation, size):
    assert SourceFacts("jpeg", "RGB", 30, 20, orientation).oriented_size == size


def test_a_sheet_survives_json():
    sheet = Sheet(tiles=(Tile(caption="a", width=1, height=2, pixels=bytes(range(250, 256))), Tile()), max_bytes=9)
    assert Sheet.model_validate_json(sheet.model_dump_json()) == sheet
