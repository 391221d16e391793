import cv2
import numpy as np
import pytest
from PIL import Image

from darkroom.tasks.imaging.formats.avif import AvifImage
from tests.tasks.imaging.reference import SIZE, encoded, facts_of, lossless, mean_difference, picture, run


def test_pixels_are_read():
    pixels = picture()
    data = encoded(pixels, "AVIF", quality=95, subsampling="4:4:4")
    assert facts_of(data).format == "avif"
    assert mean_difference(lossless(data, **SIZE), pixels) < 3


@pytest.mark.parametrize("size", [(16, 16), (61, 43), (300, 7), (1000, 600)])
@pytest.mark.parametrize("animated", [False, True])
def test_the_size_is_read_from_the_container(size, animated):
    image = Image.fromarray(picture(*size))
    more = {"save_all": True, "append_images": [image]} if animated else {}
    data = encoded(image, "AVIF", speed=10, **more)
    assert AvifImage(data).stated_size() == size


@pytest.mark.parametrize("depth", [8, 10, 12])
def test_the_size_is_read_at_every_bit_depth(depth):
    data = cv2.imencode(
        ".avif", np.zeros((40, 50, 3), np.uint8 if depth == 8 else np.uint16), [cv2.IMWRITE_AVIF_DEPTH, depth]
    )
    assert AvifImage(data[1].tobytes()).stated_size() == (50, 40)


def test_exif_is_not_parsed(monkeypatch):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a maker"
    data = encoded(Image.fromarray(picture()), "AVIF", speed=10, exif=exif)
    assert data.count(b"MM\0*") == 1
    monkeypatch.delattr(Image.Exif, "load")
    assert facts_of(data).orientation == 6 and run(data).warnings == ()
