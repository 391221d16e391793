import io

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from darkroom.tasks.imaging import TILE_SIDE, Sheet, Tile
from darkroom.tasks.imaging.records import unlimited
from darkroom.tasks.imaging.sheet import COLUMNS, GAP, draw_sheet, thumbnail
from darkroom.tasks.storage.naming import path_to_text
from tests.tasks.imaging.reference import encoded, exif_with


def drawn(tiles, max_bytes=90_000):
    return draw_sheet(Sheet(tiles=tuple(tiles), max_bytes=max_bytes).model_dump_json().encode())


def size_of(jpeg):
    with Image.open(io.BytesIO(jpeg)) as opened:
        opened.load()
        return opened.size


@settings(max_examples=60)
@given(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))
@example("ünï 'q\" %20\n🐈", "日本語/кириллица/Ελλ")
@example(path_to_text(b"\xff\xfe" * 100), "\0")
@example("W" * 5000, "i" * 5000)
@example("e" + "\u0301" * 500, "\u202e\u2066 x")
def test_any_text_can_be_a_caption(caption, alarm):
    sheet = drawn([Tile(caption=caption, alarm=alarm), Tile(caption="")])
    assert size_of(sheet)[0] == 2 * (TILE_SIDE + GAP) + GAP


def test_long_captions_keep_their_end():
    def caption_of(text):
        sheet = drawn([Tile(caption=text)])
        return np.asarray(Image.open(io.BytesIO(sheet)).convert("L")).astype(int)[GAP + TILE_SIDE :]

    same_end = np.abs(caption_of("a" * 200 + "/IMG_0139.jpg") - caption_of("b" * 200 + "/IMG_0139.jpg"))
    other_end = np.abs(caption_of("a" * 200 + "/IMG_0139.jpg") - caption_of("a" * 200 + "/IMG_0208.jpg"))
    half = same_end.shape[1] // 2
    assert same_end[:, half + 8 :].max() < 30 < same_end[:, :half].max()
    assert other_end[:, half:].max() > 60


def test_a_sheet_has_no_more_columns_than_tiles_and_grows_in_rows():
    widths = {count: size_of(drawn([Tile(caption=str(count))] * count)) for count in (1, COLUMNS, COLUMNS + 1)}
    assert widths[1][0] < widths[COLUMNS][0] == widths[COLUMNS + 1][0]
    assert widths[1][1] == widths[COLUMNS][1] < widths[COLUMNS + 1][1]


def test_a_sheet_too_large_in_the_worst_quality_is_scaled_down():
    noise = np.random.default_rng(0).integers(0, 255, (TILE_SIDE, TILE_SIDE, 3), dtype=np.uint8)
    tiles = [Tile(caption="a", width=TILE_SIDE, height=TILE_SIDE, pixels=noise.tobytes())] * 24
    large, small = drawn(tiles, 500_000), drawn(tiles, 40_000)
    assert len(small) <= 40_000 < len(large) <= 500_000
    assert size_of(small)[0] < size_of(large)[0]


def preview(data, side):
    return thumbnail(data, side, background=(255, 255, 255), max_pixels=50_000_000, allow=unlimited)


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).integers(0, 255, (300, 200, 3), dtype=np.uint8)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_a_thumbnail_shows_the_upper_part_of_a_cut_file(noise, image_format):
    noise = noise.copy()
    noise[:100] = (200, 30, 90)
    data = encoded(noise, image_format)
    width, height, pixels = preview(data[: len(data) * 2 // 3], 100)
    found = np.frombuffer(pixels, np.uint8).reshape(height, width, 3).astype(int)
    assert found.shape == (100, 67, 3)
    assert np.abs(found[:25].mean((0, 1)) - (200, 30, 90)).max() < 8


def test_a_thumbnail_is_upright(noise):
    width, height, _ = preview(encoded(noise, "JPEG", exif=exif_with(6))[:-500], 60)
    assert (width, height) == (60, 40)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>not found</html>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n",
        encoded(np.zeros((7100, 7100), np.uint8), "PNG"),  # more pixels than allowed
        encoded(np.zeros((8, 8, 3), np.uint8), "JPEG")[:30],
    ],
)
def test_unreadable_files_have_no_thumbnail(data):
    with pytest.raises(Exception):  # noqa: B017 - whatever Pillow raises
        preview(data, 100)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
