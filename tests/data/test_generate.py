import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from data import generate, photos
from data.generate import BROKEN, NOT_IMAGES, sample_plan, write_sample
from data.photos import photo, write_corpus
from tests.contents import files

COUNT, SCALE = 60, 0.2


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample") / "sample"
    write_sample(folder, COUNT, scale=SCALE)
    return folder


def can_be_decoded(path):
    try:
        with Image.open(path) as image:
            image.load()
    except OSError:
        return False
    return True


def test_a_photo_depends_on_nothing_but_its_arguments():
    assert np.array_equal(photo(50, 40, 1), photo(50, 40, 1))
    assert not np.array_equal(photo(50, 40, 1), photo(50, 40, 2))
    assert photo(50, 40, 1).shape == (40, 50, 3)
    assert photo(50, 40, 1).dtype == np.uint8


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 90), (90, 1), (3, 2)])
def test_a_photo_may_be_tiny(width, height):
    assert photo(width, height, 0).shape == (height, width, 3)


@pytest.mark.parametrize("seed", range(3))
def test_generated_photos_are_as_large_as_real_ones_in_jpeg(seed):
    buffer = io.BytesIO()
    Image.fromarray(photo(500, 375, seed)).save(buffer, "JPEG", quality=90)
    assert 60_000 < len(buffer.getvalue()) < 120_000


def test_the_sample_holds_the_planned_images_and_a_few_other_files(sample):
    plan = sample_plan(COUNT)
    assert len(plan) == COUNT
    assert files(sample).keys() == {image.path for image in plan} | NOT_IMAGES.keys()


def test_exactly_the_broken_images_cannot_be_decoded(sample):
    images = [image.path for image in sample_plan(COUNT)]
    assert {path for path in images if not can_be_decoded(sample / path)} == set(BROKEN)


def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(sample, tmp_path):
    write_sample(tmp_path / "again", COUNT, scale=SCALE)
    assert files(tmp_path / "again") == files(sample)
    write_sample(tmp_path / "other", COUNT, seed=7, scale=SCALE)
    assert files(tmp_path / "other") != files(sample)


def test_every_orientation_is_present_and_its_tag_turns_the_picture_upright(sample):
    seen = set()
    for planned in sample_plan(COUNT):
        if planned.orientation is None:
            continue
        expected = planned.scaled(SCALE)
        with Image.open(sample / planned.path) as image:
            seen.add(image.getexif()[0x0112])
            upright = ImageOps.exif_transpose(image)
        assert upright.size == (expected.width, expected.height)
        if planned.path.startswith("orientations/"):
            sky, *_, ground = np.array_split(np.asarray(upright, float)[..., 2], 5)
            assert sky.mean() > ground.mean(), planned.path
    assert seen == set(range(1, 9))


@pytest.mark.parametrize(
    ("name", "format_and_mode"),
    [
        ("grey.jpg", ("JPEG", "L")),
        ("grey.png", ("PNG", "L")),
        ("cmyk.jpg", ("JPEG", "CMYK")),
        ("transparent.png", ("PNG", "RGBA")),
        ("transparent.webp", ("WEBP", "RGBA")),
        ("palette.png", ("PNG", "P")),
        ("animated.gif", ("GIF", "P")),
        ("a png by content.jpg", ("PNG", "RGB")),
    ],
)
def test_files_in_formats_have_the_planned_format_and_mode(sample, name, format_and_mode):
    with Image.open(sample / "formats" / name) as image:
        assert (image.format, image.mode) == format_and_mode


def test_the_png_has_16_bits_and_the_gif_six_frames(sample):
    header = (sample / "formats/16 bits.png").read_bytes()[:32]
    assert header[24] == 16
    with Image.open(sample / "formats/animated.gif") as image:
        assert image.n_frames == 6


def test_a_count_too_small_for_the_special_images_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least"):
        write_sample(tmp_path / "sample", 3)
    assert not (tmp_path / "sample").exists()


@pytest.mark.parametrize("write", [lambda to: write_sample(to, COUNT), lambda to: write_corpus(to, 9, (8, 8))])
def test_an_interrupted_write_leaves_no_folder(write, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(generate, "photo", interrupt)
    monkeypatch.setattr(photos, "photo", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "images")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_empty_is_refused_and_not_changed(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="delete it"):
        write_corpus(tmp_path, 1, (8, 8))
    assert files(tmp_path) == {"mine.txt": b"precious"}


def test_a_corpus_has_distinct_images_of_one_size_and_can_be_reproduced(tmp_path):
    paths = write_corpus(tmp_path / "one", 20, (64, 48))
    assert sorted(paths) == paths
    assert len({path.read_bytes() for path in paths}) == 20
    for path in paths:
        with Image.open(path) as image:
            assert (image.format, image.size) == ("JPEG", (64, 48))
    write_corpus(tmp_path / "two", 20, (64, 48))
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_it_runs_as_a_script_from_any_folder(tmp_path):
    script = Path(generate.__file__)
    command = [sys.executable, script, "--count", "3", "--size", "40x30", "small corpus"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(files(tmp_path / "small corpus")) == 3
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert again.stderr == "small corpus already exists; delete it to make it again\n"


@pytest.mark.parametrize("arguments", [["--count", "0"], ["--count", "2", "--size", "500"], ["--size", "0x4"]])
def test_invalid_arguments_are_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        generate.main(arguments)
    assert "error: argument" in capsys.readouterr().err


def test_only_one_of_two_names_is_written_where_case_is_ignored(tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "_distinguishes_case", lambda _: False)
    paths = write_sample(tmp_path / "sample", COUNT, scale=SCALE)
    assert len({str(path).lower() for path in paths}) == len(paths) == COUNT - 1
