"""Conversions by curves and a matrix agree with littleCMS."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from darkroom.tasks.imaging.color import to_srgb
from darkroom.tasks.imaging.matrix_profile import CHANNELS, PARAMETERS, read_matrix_conversion, read_tags
from tests.fuzz.samples import other_profile


def fixed(*numbers):
    return struct.pack(f">{len(numbers)}i", *(round(number * 65536) for number in numbers))


def table(count):
    points = np.rint(np.linspace(0, 1, count) ** 1.8 * 65535).astype(">u2")
    return b"curv" + bytes(4) + struct.pack(">I", count) + points.tobytes()


def parametric(kind, *numbers):
    return b"para" + bytes(4) + struct.pack(">HH", kind, 0) + fixed(*numbers)


CURVES = {
    "identity": b"curv" + bytes(8),
    "gamma": b"curv" + bytes(4) + struct.pack(">IH", 1, round(1.8 * 256)),
    "table of 16": table(16),
    "table of 1024": table(1024),
    "parametric 0": parametric(0, 2.2),
    "parametric 1": parametric(1, 2.0, 1.1, -0.1),
    "parametric 2": parametric(2, 2.0, 1.1, -0.1, 0.0),
    "parametric 3": parametric(3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045),
    "parametric 4": parametric(4, 2.4, 0.94, 0.06, 0.08, 0.04, -0.0001, 0.0),
}


def with_curve(curve):
    """Return `other_profile()` with this curve for every channel."""
    tags = read_tags(other_profile())
    tags = {kind: curve if kind[1:] == b"TRC" else content for kind, content in tags.items()}
    header = other_profile()[:128]
    entries, contents = b"", b""
    for kind, content in tags.items():
        entries += struct.pack(">4sII", kind, 132 + 12 * len(tags) + len(contents), len(content))
        contents += content + bytes(-len(content) % 4)
    whole = header + struct.pack(">I", len(tags)) + entries + contents
    return struct.pack(">I", len(whole)) + whole[4:]


def lattice():
    steps = np.arange(0, 256, 5, np.uint8)
    return np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(steps.size, -1, 3)


def by_littlecms(profile, pixels):
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), "RGB", "RGB")
    return np.asarray(transform.apply(Image.fromarray(pixels)))


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES.keys())
def test_a_conversion_differs_from_littlecms_by_at_most_one_level(curve):
    profile, pixels = with_curve(curve), lattice()
    conversion = read_matrix_conversion(profile)
    expected = by_littlecms(profile, pixels)
    assert np.abs(expected.astype(int) - pixels).max() > 100, "the profile changes colours"
    assert np.abs(expected.astype(int) - conversion.apply(pixels)).max() <= 1


def test_every_kind_of_parametric_curve_is_tried():
    assert {f"parametric {kind}" for kind in range(len(PARAMETERS))} <= CURVES.keys()


@pytest.mark.parametrize("kind", [b"A2B0", b"D2B1"])
def test_a_profile_with_lookup_tables_is_left_to_littlecms(kind):
    assert read_matrix_conversion(other_profile().replace(b"cprt", kind)) is None


@pytest.mark.parametrize("missing", [*(c + b"TRC" for c in CHANNELS), *(c + b"XYZ" for c in CHANNELS)])
def test_a_profile_without_a_curve_or_column_is_left_to_littlecms(missing):
    assert read_matrix_conversion(other_profile().replace(missing, b"none")) is None


@pytest.mark.parametrize(
    "curve",
    [b"curv" + bytes(4) + b"\xff" * 4, b"para" + bytes(6), parametric(1, 2.0, 0.0, 0.1), parametric(0, -3.0)],
    ids=["more points than bytes", "cut off", "slope 0", "pole at 0"],
)
def test_a_damaged_curve_is_left_to_littlecms(curve):
    pixels, profile = lattice(), with_curve(curve)
    with pytest.raises((ValueError, struct.error, ArithmeticError)):
        read_matrix_conversion(profile)
    warnings = []
    converted = to_srgb(pixels.copy(), profile, warnings)
    assert converted.shape == pixels.shape


def test_a_conversion_is_used_where_it_agrees_with_littlecms():
    pixels, profile = lattice(), with_curve(CURVES["gamma"])
    assert np.array_equal(to_srgb(pixels.copy(), profile, []), read_matrix_conversion(profile).apply(pixels))


def test_a_profile_whose_black_point_littlecms_moves_is_left_to_littlecms():
    pixels, profile = lattice(), with_curve(parametric(2, 2.0, 0.85, 0.05, 0.1))
    expected = by_littlecms(profile, pixels)
    assert np.abs(expected.astype(int) - read_matrix_conversion(profile).apply(pixels)).max() > 50
    assert np.array_equal(to_srgb(pixels.copy(), profile, []), expected)
