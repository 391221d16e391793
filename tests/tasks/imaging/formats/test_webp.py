from contextlib import nullcontext

import pytest

from darkroom.tasks.errors import ImageError
from darkroom.tasks.imaging.formats.webp import WebpImage
from tests.fuzz.samples import samples


@pytest.mark.parametrize(("name", "is_checked"), [("webp/lossless", True), ("webp/lossy", False)])
def test_an_end_of_zeros_is_detected_in_lossless_pictures(name, is_checked):
    data = samples()[name]
    image = WebpImage(data[:-300] + bytes(300))
    with pytest.raises(ImageError) if is_checked else nullcontext():
        image._check_pixels()
    assert WebpImage(data[:-1]).is_cut() and not WebpImage(data).is_cut()


@pytest.mark.parametrize("name", ["webp/lossy", "webp/lossless", "webp/alpha", "webp/animated"])
def test_the_size_is_read_from_each_kind_of_first_chunk(name):
    assert WebpImage(samples()[name]).stated_size() == (61, 43)
    assert WebpImage(samples()[name][:20]).stated_size() in {None, (1, 1)}
