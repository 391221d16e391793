import numpy as np
import pytest

from darkroom.tasks.errors import ErrorCode
from tests.fuzz import build
from tests.tasks.imaging.reference import SIZE, failure, lossless, picture, pixels_of, rounded, run


def deep(channels, white, **options):
    samples = np.random.default_rng(1).integers(0, white + 1, (80, 120, channels)).astype(np.uint16)
    samples[0, 0] = white
    return samples, build.tiff_picture(samples, **options)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("tag", [281, 341])
@pytest.mark.parametrize("white", [1023, 4095, 16383, 50021])
def test_samples_are_scaled_by_the_white_that_the_file_states(channels, tag, white):
    samples, data = deep(channels, white, more=[(tag, 3, [white] * channels)])
    expected = np.broadcast_to(rounded(samples, white), (80, 120, 3))
    assert np.array_equal(lossless(data, **SIZE), expected) and run(data).warnings == ()


def test_a_stated_white_below_a_sample_is_ignored():
    samples, data = deep(1, 65535, more=[(281, 3, [4095])])
    assert np.array_equal(lossless(data, **SIZE, color="gray"), rounded(samples[:, :, 0]))


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_of_12_bits_in_16_without_a_stated_white_add_a_warning(channels):
    samples, data = deep(channels, 4095)
    result = run(data, **SIZE, format="png", color="gray" if channels == 1 else "rgb")
    assert result.warnings == ("low_range",)
    assert np.array_equal(pixels_of(result), rounded(samples).squeeze())


@pytest.mark.parametrize("rows", [80, 11])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_big_endian_bigtiff(kind, rows):
    samples = picture().astype(kind) * (1 if kind is np.uint8 else 257)
    data = build.tiff_picture(samples, rows=rows, order=">", big=True, more=[(274, 3, [3])])
    assert np.array_equal(lossless(data, **SIZE)[::-1, ::-1], picture())


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "channels"), [("f4", 1), ("f8", 1), ("f4", 3), ("f8", 3)])
def test_floating_point_samples_from_0_to_1(kind, channels, order):
    samples = np.random.default_rng(2).random((80, 120, channels)).astype(kind)
    data = build.tiff_picture(samples, rows=9, order=order, more=[(339, 3, [3] * channels), (274, 3, [2])])
    expected = np.broadcast_to(np.rint(samples * 255), (80, 120, 3))
    assert np.array_equal(lossless(data, **SIZE)[:, ::-1], expected)


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (np.full((80, 120, 1), 300, "f4"), "32-bit floating-point samples"),
        (np.full((80, 120, 3), -1, "f8"), "64-bit floating-point samples"),
        (np.full((80, 120, 3), np.nan, "f4"), "32-bit floating-point samples"),
        (np.full((80, 120, 1), 0.5, "f2"), "16-bit floating-point samples"),
        (np.full((80, 120, 1), 5, "i4"), "32-bit signed samples"),
        (np.full((80, 120, 1), 5, "i2"), "16-bit signed samples"),
        (np.full((80, 120, 3), 5, "u4"), "32-bit unsigned samples, 3 for each pixel (RGB)"),
        (np.full((80, 120, 3), 5, "i2"), "16-bit signed samples"),
    ],
)
def test_errors_name_unsupported_sample_types(samples, words):
    kinds = {"f": 3, "i": 2, "u": 1}
    formats = [kinds[samples.dtype.kind]] * samples.shape[2]
    code, error = failure(build.tiff_picture(samples, more=[(339, 3, formats)]))
    assert code is ErrorCode.DECODE_UNSUPPORTED and words in error.message and error.facts.width == 120


def test_lab_becomes_srgb():
    # Computed from the definition of L*a*b* for D50 and the matrix from D50 to sRGB.
    lab = np.array([[(255, 0, 0), (0, 0, 0), (150, 20, 30), (200, 5, -20)]], np.int16)
    expected = [[255, 255, 255], [0, 0, 0], [186, 128, 90], [189, 192, 231]]
    data = build.tiff_picture(lab.astype(np.int8).view(np.uint8), more=[(262, 3, [8])])
    assert np.abs(lossless(data, width=4, height=1)[0].astype(int) - expected).max() <= 2
