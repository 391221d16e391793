import numpy as np
import pytest
from PIL import Image

from darkroom.tasks.imaging.resample import resize, resize_and_crop
from tests.tasks.imaging.reference import encoded, lossless, picture, pixels_of, run


def test_shrinking_is_antialiased_except_with_nearest():
    stripes = np.zeros((128, 128, 3), np.uint8)
    stripes[:, ::2] = 255
    data = encoded(stripes, "PNG")
    for method in ("auto", "area", "linear", "cubic", "lanczos"):
        for box in ((32, 32), (33, 128), (33, 200)):
            out = lossless(data, width=box[0], height=box[1], filter=method)
            assert np.abs(out[:, 3:-3].astype(int) - 127.5).max() < 50, (method, box)
    nearest = lossless(data, width=33, height=33, filter="nearest")
    assert set(np.unique(nearest)) == {0, 255}


def test_enlarging_is_linear_by_default():
    data = encoded(np.array([[[0, 0, 0], [200, 200, 200]]], np.uint8), "PNG")
    assert lossless(data, width=8, height=1)[0, :, 0].tolist() == [0, 0, 25, 75, 125, 175, 200, 200]


@pytest.mark.parametrize("method", ["linear", "cubic", "lanczos"])
def test_named_filters_equal_those_of_pillow(method):
    pixels = picture()
    names = {"linear": "BILINEAR", "cubic": "BICUBIC", "lanczos": "LANCZOS"}
    expected = Image.fromarray(pixels).resize((50, 70), Image.Resampling[names[method]])
    out = lossless(encoded(pixels, "PNG"), width=50, height=70, filter=method)
    assert np.array_equal(out, np.array(expected))


@pytest.mark.parametrize("method", ["auto", "area", "linear", "cubic", "lanczos"])
@pytest.mark.parametrize("box", [(30, 20), (240, 160), (30, 160)])
def test_transparent_black_never_darkens_an_edge(method, box):
    pixels = np.zeros((80, 120, 4), np.uint8)
    pixels[:, 37:] = (250, 240, 230, 255)
    out = lossless(encoded(pixels, "PNG"), width=box[0], height=box[1], filter=method)
    seen = out[out[:, :, 3] > 8]
    assert np.abs(seen[:, :3].astype(int) - [250, 240, 230]).max() <= 3
    edge = out[0, :, 3]
    assert edge[0] == 0 and edge[-1] == 255 and ((edge > 0) & (edge < 255)).any()
    flat = pixels_of(run(encoded(pixels, "PNG"), width=box[0], height=box[1], filter=method, quality=100))
    assert flat.min() >= 215


@pytest.mark.parametrize("length", [32_768, 65_537, 1_000_000])
@pytest.mark.parametrize("method", ["area", "nearest", "lanczos"])
def test_long_strips_are_resampled_like_short_ones(length, method):
    # Sixteen steps of one colour each: an output pixel that is not near an edge has the colour of its step.
    levels = np.repeat(np.arange(16, dtype=np.uint8) * 16, -(-length // 16))[:length]
    strip = np.repeat(levels[None, :, None], 3, axis=2)
    expected = np.repeat(np.arange(16) * 16, 16)
    for pixels, size in ((strip, (256, 1)), (strip.transpose(1, 0, 2).copy(), (1, 256))):
        out = resize(pixels, *size, method).reshape(256, 3)[:, 0].astype(int)
        inner = np.arange(256) % 16
        assert (np.abs(out - expected)[(inner > 3) & (inner < 12)] <= 1).all()


@pytest.mark.parametrize(("extent", "width"), [(1200.5, 600), (300.25, 123), (801.875, 37), (150.125, 1)])
def test_the_area_filter_averages_a_picture_of_fractional_width(extent, width):
    pixels = np.random.default_rng(0).integers(0, 256, (1, int(extent) + 1), np.uint8).repeat(4, axis=0)
    eighths = np.repeat(pixels[0].astype(float), 8)[: int(extent * 8)]
    sums = np.append(0, np.cumsum(eighths))
    edges = np.linspace(0, len(eighths), width + 1)
    expected = np.diff(np.interp(edges, np.arange(len(sums)), sums)) * width / len(eighths)
    out = resize(pixels, width, 2, "area", (extent, 4.0))[0]
    assert out.shape == (width,) and np.abs(out - expected).max() < 0.6


@pytest.mark.parametrize("method", ["auto", "area"])
def test_a_crop_of_a_long_strip_is_the_middle_of_the_whole(method):
    strip = np.random.default_rng(0).integers(0, 256, (60, 4000, 3), np.uint8)
    whole = resize(strip, 3400, 51, method)
    assert np.array_equal(resize_and_crop(strip, (3400, 51), (1674, 0, 51, 51), method), whole[:, 1674:1725])
