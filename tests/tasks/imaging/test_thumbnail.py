import io

import numpy as np
import pytest
from darkroom.tasks.imaging.facts import unlimited
from PIL import Image, ImageFile

from darkroom.tasks.imaging.thumbnail import thumbnail
from darkroom.tasks.worker.orders import Orders


def preview(data, side):
    return thumbnail(data, Orders(max_pixels=50_000_000, max_image_seconds=1, side=side), unlimited)


def saved(pixels, image_format="JPEG", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, image_format, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).integers(0, 255, (300, 200, 3), dtype=np.uint8)


def shown(found):
    width, height, pixels = found
    return np.frombuffer(pixels, np.uint8).reshape(height, width, 3).astype(int)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_the_upper_part_of_a_file_that_was_cut_is_shown(noise, image_format):
    noise = noise.copy()
    noise[:100] = (200, 30, 90)
    data = saved(noise, image_format)
    found = shown(preview(data[: len(data) * 2 // 3], 100))
    assert found.shape == (100, 67, 3)
    assert np.abs(found[:25].mean((0, 1)) - (200, 30, 90)).max() < 8


def test_it_is_turned_upright(noise):
    exif = Image.Exif()
    exif[0x0112] = 6
    width, height, _ = preview(saved(noise, exif=exif)[:-500], 60)
    assert (width, height) == (60, 40)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>not found</html>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n",
        saved(np.zeros((7100, 7100), np.uint8), "PNG"),  # more pixels than allowed
        saved(np.zeros((8, 8, 3), np.uint8))[:30],
    ],
)
def test_where_nothing_is_to_be_seen_nothing_is_shown(data):
    with pytest.raises(Exception):  # noqa: B017 - whatever Pillow says of what is no image
        preview(data, 100)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
