import io

import numpy as np
import pytest
from PIL import Image

from darkroom.tasks.errors import ErrorCode
from tests.tasks.imaging.reference import SIZE, encoded, failure, picture, run


@pytest.mark.parametrize("image_format", ["jpeg", "png", "webp"])
@pytest.mark.parametrize("color", ["rgb", "gray"])
def test_outputs_have_the_stated_format_size_and_channels_and_no_metadata(image_format, color):
    result = run(encoded(picture(), "PNG"), width=64, height=48, format=image_format, color=color)
    with Image.open(io.BytesIO(result.data)) as image:
        assert image.format.lower() == result.format == image_format
        assert image.size == (result.width, result.height) == (64, 48)
        assert len(image.getbands()) == result.channels
        assert not {"exif", "icc_profile", "xmp", "comment"} & set(image.info)


@pytest.mark.parametrize("alpha", [255, 90])
@pytest.mark.parametrize("image_format", ["png", "webp"])
def test_the_stated_channels_are_those_that_a_reader_finds(image_format, alpha):
    pixels = np.dstack((picture(), np.full((80, 120), alpha, np.uint8)))
    result = run(encoded(pixels, "PNG"), format=image_format, **SIZE)
    with Image.open(io.BytesIO(result.data)) as image:
        assert len(image.getbands()) == result.channels


@pytest.mark.parametrize("image_format", ["jpeg", "webp"])
def test_quality_changes_the_size(image_format):
    data = encoded(picture(), "PNG")
    sizes = [len(run(data, format=image_format, quality=quality).data) for quality in (10, 60, 95)]
    assert sizes == sorted(sizes) and sizes[0] < sizes[2] / 2


@pytest.mark.parametrize("image_format", ["jpeg", "webp", "png"])
def test_outputs_that_would_be_enormous_are_refused(image_format):
    code, error = failure(encoded(picture(1, 3000), "PNG"), fit="outside", format=image_format)
    assert code is ErrorCode.ENCODE_FAILED and "1,800,000" in error.message and error.facts.height == 3000


def test_a_box_of_more_pixels_than_the_limit_is_refused():
    code, _ = failure(encoded(picture(40, 30), "PNG"), max_pixels=2000)
    assert code is ErrorCode.ENCODE_FAILED
