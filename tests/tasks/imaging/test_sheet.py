import io

import numpy as np
from darkroom.tasks.imaging.tiles import SIDE, Sheet, Tile
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from darkroom.tasks.imaging.sheet import COLUMNS, GAP, draw_sheet
from darkroom.tasks.storage.naming import path_to_text


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
    assert size_of(sheet)[0] == 2 * (SIDE + GAP) + GAP


def test_long_captions_keep_their_end():
    def caption_of(text):
        sheet = drawn([Tile(caption=text)])
        return np.asarray(Image.open(io.BytesIO(sheet)).convert("L")).astype(int)[GAP + SIDE :]

    same_end = np.abs(caption_of("a" * 200 + "/IMG_0139.jpg") - caption_of("b" * 200 + "/IMG_0139.jpg"))
    other_end = np.abs(caption_of("a" * 200 + "/IMG_0139.jpg") - caption_of("a" * 200 + "/IMG_0208.jpg"))
    half = same_end.shape[1] // 2
    assert same_end[:, half + 8 :].max() < 30 < same_end[:, :half].max()
    assert other_end[:, half:].max() > 60


def test_a_sheet_has_no_more_columns_than_tiles_and_grows_in_rows():
    widths = {count: size_of(drawn([Tile(caption=str(count))] * count)) for count in (1, COLUMNS, COLUMNS + 1)}
    assert widths[1][0] < widths[COLUMNS][0] == widths[COLUMNS + 1][0]
    assert widths[1][1] == widths[COLUMNS][1] < widths[COLUMNS + 1][1]


def test_what_does_not_fit_in_the_worst_quality_is_made_smaller():
    noise = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
    tiles = [Tile(caption=str(number), width=SIDE, height=SIDE, pixels=noise.tobytes()) for number in range(24)]
    large, small = drawn(tiles, 500_000), drawn(tiles, 40_000)
    assert len(small) <= 40_000 < len(large) <= 500_000
    assert size_of(small)[0] < size_of(large)[0]
