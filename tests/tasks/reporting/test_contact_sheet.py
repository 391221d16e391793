import io
import os
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from darkroom.tasks.dataset.shard import shard_refs
from darkroom.tasks.errors import ErrorCode
from darkroom.tasks.imaging import TILE_SIDE, Sheet, Tile
from darkroom.tasks.imaging.sheet import ALARM_GROUND, CAPTION_HEIGHT, COLUMNS, GAP, GROUND
from darkroom.tasks.publish import publish
from darkroom.tasks.reporting import contact_sheet
from darkroom.tasks.reporting.contact_sheet import (
    FAILURES_SHOWN,
    MAX_BYTES,
    OUTPUTS_SHOWN,
    PREVIEWED,
    ContactSheets,
    make_contact_sheets,
)
from darkroom.tasks.resize import work_shard
from darkroom.tasks.settings import Recipe
from darkroom.tasks.worker.shared_batch import Operation
from tests.tasks.helpers import failed_row, make_job, open_workspace, prepare, publish_rows, row


def colour(number):
    """Return a colour for each number below 64, far from all others and from the background."""
    return tuple(40 + 50 * (number >> shift & 3) for shift in (0, 2, 4))


def plain(path, size, fill, mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, fill).save(path, **options)


def process_and_publish(source, place, recipe):
    """Make a source's outputs and publish them, as a run does."""
    workspace, job, plan = prepare(source, place, recipe=recipe)
    for ref in shard_refs(workspace, plan.shards):
        work_shard(ref)
    publish(workspace, job, ended=True)
    return job


def tile_of(sheet, number):
    """Return the pixels of a contact sheet's tile."""
    with Image.open(io.BytesIO(sheet.jpeg)) as opened:
        assert opened.format == "JPEG"
        pixels = np.asarray(opened.convert("RGB")).astype(int)
    columns = min(COLUMNS, sheet.images)
    rows = -(-sheet.images // columns)
    step = TILE_SIDE + CAPTION_HEIGHT + GAP
    assert pixels.shape == (rows * step + GAP, columns * (TILE_SIDE + GAP) + GAP, 3)
    top, left = GAP + number // columns * step, GAP + number % columns * (TILE_SIDE + GAP)
    return pixels[top : top + TILE_SIDE, left : left + TILE_SIDE]


def middle(tile):
    return tile[TILE_SIDE // 2 - 2 : TILE_SIDE // 2 + 2, TILE_SIDE // 2 - 2 : TILE_SIDE // 2 + 2].mean((0, 1))


def corner(tile):
    return tile[2:6, 2:6].mean((0, 1))


def close(found, wanted, tolerance=12):
    return np.abs(np.asarray(found) - wanted).max() <= tolerance


def test_a_sample_is_spread_over_the_paths_and_the_same_every_time(source, place):
    for number in range(40):
        plain(source / f"{number // 7}/{number:02d}.jpg", (60, 40), colour(number), quality=95)
    job = process_and_publish(source, place, Recipe(width=64, height=64))
    sheets = make_contact_sheets(place, job)
    assert sheets.failed is None
    assert sheets.made.images == OUTPUTS_SHOWN
    shown = [(2 * index + 1) * 40 // (2 * OUTPUTS_SHOWN) for index in range(OUTPUTS_SHOWN)]
    assert shown[0] == 0
    assert shown[-1] == 39
    for tile, number in enumerate(shown):
        assert close(middle(tile_of(sheets.made, tile)), colour(number)), number
    assert make_contact_sheets(place, job) == sheets


@pytest.mark.parametrize("output_format", ["jpeg", "png", "webp"])
def test_outputs_of_every_shape_and_transparency_are_shown(source, place, output_format):
    plain(source / "1-colour.png", (90, 60), (200, 40, 40))
    plain(source / "2-clear.png", (90, 60), (0, 0, 0, 0), "RGBA")
    half = Image.new("RGBA", (90, 60), (20, 160, 60, 255))
    half.paste((0, 0, 0, 0), (0, 0, 45, 60))
    half.save(source / "3-half.png")
    plain(source / "4-tiny.png", (3, 2), (200, 40, 200))
    plain(source / "5-wide.png", (3000, 2), (40, 40, 200))
    plain(source / "6-tall.png", (1, 3000), (40, 200, 200))
    recipe = Recipe(width=300, height=300, fit="inside", upscale=False, format=output_format, background="#ffcc00")
    job = process_and_publish(source, place, recipe)
    sheets = make_contact_sheets(place, job)
    tiles = [tile_of(sheets.made, number) for number in range(6)]
    assert close(middle(tiles[0]), (200, 40, 40))
    assert close(corner(tiles[0]), GROUND)  # above a wide picture
    assert close(middle(tiles[1]), (255, 204, 0))
    assert close(tiles[2][64, 30], (255, 204, 0), 20)
    assert close(tiles[2][64, 98], (20, 160, 60), 20)
    assert close(middle(tiles[3]), (200, 40, 200)), "enlarged"
    assert close(tiles[3][64, 4], (200, 40, 200), 40)
    for end in (1, -2):  # lines of one pixel, whose colour a JPEG spreads
        assert close(tiles[4][63, end].min(), 40, 90)
        assert close(tiles[5][end, 63].min(), 40, 90)


def test_gray_outputs_are_shown(source, place):
    plain(source / "a.png", (30, 30), 90, "L")
    job = process_and_publish(source, place, Recipe(width=32, height=32, color="gray", format="webp"))
    assert close(middle(tile_of(make_contact_sheets(place, job).made, 0)), (90, 90, 90))


def test_missing_and_damaged_outputs_have_tiles_without_pictures(source, place):
    for number in range(8):
        plain(source / f"{number}.png", (30, 30), colour(number))
    job = process_and_publish(source, place, Recipe(width=32, height=32, format="png"))
    outputs = sorted(place.images.iterdir())
    outputs[0].unlink()
    outputs[1].write_bytes(outputs[1].read_bytes()[:-10])
    outputs[2].write_bytes(bytes(outputs[2].stat().st_size))
    outputs[3].unlink()
    outputs[3].mkdir()
    size = outputs[4].stat().st_size
    plain(outputs[4], (4, 4), colour(4))
    outputs[4].write_bytes(outputs[4].read_bytes().ljust(size, b"\0"))
    outputs[5].unlink()
    os.mkfifo(outputs[5])
    sheet = make_contact_sheets(place, job).made
    for number in range(6):
        assert close(corner(tile_of(sheet, number)), ALARM_GROUND), number
    for number in (6, 7):
        assert close(middle(tile_of(sheet, number)), colour(number))


def test_fewer_large_outputs_are_shown(source, place, monkeypatch):
    for number in range(20):
        plain(source / f"{number:02d}.png", (10, 10), colour(number))
    job = process_and_publish(source, place, Recipe(width=50, height=40, format="png"))
    monkeypatch.setattr(contact_sheet, "MAX_PIXELS", 5 * 50 * 40)
    sheet = make_contact_sheets(place, job).made
    assert [close(middle(tile_of(sheet, tile)), colour(4 * tile + 2)) for tile in range(5)] == [True] * 5
    monkeypatch.setattr(contact_sheet, "MAX_PIXELS", 50 * 40 - 1)
    sheet = make_contact_sheets(place, job).made
    assert sheet.images == 1
    assert close(corner(tile_of(sheet, 0)), ALARM_GROUND)


def test_contact_sheets_of_noise_are_within_the_limit(source, place):
    noise = np.random.default_rng(0)
    for number in range(OUTPUTS_SHOWN):
        pixels = noise.integers(0, 255, (TILE_SIDE, TILE_SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(source / f"{number}.png")
    job = process_and_publish(source, place, Recipe(width=TILE_SIDE, height=TILE_SIDE, format="png"))
    sheet = make_contact_sheets(place, job).made
    assert len(sheet.jpeg) <= MAX_BYTES
    Image.open(io.BytesIO(sheet.jpeg)).load()


def test_the_readable_part_of_failed_images_is_shown(source, place):
    photo = np.zeros((400, 400, 3), np.uint8)
    photo[:200] = (30, 160, 60)
    photo[200:] = np.random.default_rng(0).integers(0, 255, (200, 400, 3))
    Image.fromarray(photo).save(source / "cut.jpg", quality=95)
    whole = (source / "cut.jpg").read_bytes()
    (source / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (source / "empty.jpg").touch()
    (source / "page.jpg").write_text("<html>not found</html>")
    plain(source / "fine.png", (10, 10), (0, 0, 0))
    job = process_and_publish(source, place, Recipe(width=32, height=32))
    sheets = make_contact_sheets(place, job)
    assert (sheets.made.images, sheets.failed.images) == (1, 3)
    cut, page, empty = (tile_of(sheets.failed, number) for number in range(3))
    assert close(cut[20:50, 20:100].mean((0, 1)), (30, 160, 60))
    for tile in (page, empty):
        assert close(corner(tile), ALARM_GROUND)
        assert tile[56:72].min() < 120, "the error code is written across the tile"


@pytest.mark.parametrize(("fill", "shown"), [((0, 0, 0), False), ((0, 0, 9), True)])
def test_a_failed_image_has_a_preview_unless_it_is_of_one_colour(source, place, fill, shown):
    picture = Image.new("RGB", (300, 200))
    picture.paste(fill, (0, 0, 300, 100))
    picture.save(source / "a.png")
    job = publish_rows(place, [failed_row("a.png", "decode.corrupt")], source=source)
    tile = tile_of(make_contact_sheets(place, job).failed, 0)
    assert close(tile[40:50, 40:90].mean((0, 1)), fill if shown else ALARM_GROUND)


def test_images_that_crashed_or_exceeded_limits_are_not_decoded_again(source, place, monkeypatch, submitted):
    for code in ErrorCode:
        plain(source / f"{code}.png", (10, 10), (0, 0, 0))
    rows = [failed_row(f"{code}.png", code.value) for code in sorted(ErrorCode)]
    job = publish_rows(place, rows, source=source)
    submitted.clear()
    monkeypatch.setattr(contact_sheet, "FAILURES_SHOWN", 100)
    assert make_contact_sheets(place, job).failed.images == len(ErrorCode)
    assert [operation for operation, _ in submitted] == [Operation.THUMBNAIL] * len(PREVIEWED) + [Operation.SHEET]
    dangerous = {"decode.crash", "decode.timeout", "decode.memory", "decode.too_many_pixels", "decode.unsupported"}
    assert not PREVIEWED & dangerous


def test_previews_end_when_their_time_is_up(source, place, monkeypatch):
    for number in range(5):
        (source / f"{number}.jpg").write_bytes(b"x")
    rows = [failed_row(f"{number}.jpg", "decode.corrupt") for number in range(5)]
    job = publish_rows(place, rows, source=source)
    seconds = iter([0.0, 0.0, 1.0, 4.5, 5.9, 6.1])
    given = []
    monkeypatch.setattr(contact_sheet, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    monkeypatch.setattr(contact_sheet, "_preview", lambda *arguments: given.append(round(arguments[-1], 3)) or Tile())
    assert make_contact_sheets(place, job).failed.images == 5
    assert given == [3.0, 3.0, 1.5, 0.1]


def test_failures_of_every_code_are_shown(source, place, submitted):
    many = [failed_row(f"a/{number:03d}.jpg", "source.denied") for number in range(100)]
    rare = [failed_row("z.jpg", "write.failed"), failed_row("y.jpg", "decode.corrupt")]
    job = publish_rows(place, many + rare, source=source)
    submitted.clear()
    make_contact_sheets(place, job)
    tiles = Sheet.model_validate_json(submitted[-1][1]).tiles
    assert len(tiles) == FAILURES_SHOWN
    assert [tile.caption for tile in tiles] == [
        "y.jpg", *(f"a/{number:03d}.jpg" for number in range(FAILURES_SHOWN - 2)), "z.jpg",
    ]  # fmt: skip


def test_a_run_that_attempted_nothing_has_no_contact_sheets(place):
    job = make_job(place)
    workspace = open_workspace(place, job)
    publish(workspace, job, ended=True)
    assert make_contact_sheets(place, job) == ContactSheets()


def test_images_that_were_only_touched_are_not_shown(place):
    job = publish_rows(place, [row("a.jpg", status="unchanged", file_name=None, width=None, height=None)])
    assert make_contact_sheets(place, job) == ContactSheets()
