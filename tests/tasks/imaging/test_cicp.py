import numpy as np
import pytest

from darkroom.tasks.imaging.cicp import profile_of
from darkroom.tasks.imaging.color import to_srgb

RED = np.full((1, 1, 3), (200, 60, 60), np.uint8)


def converted(primaries, transfer, color):
    warnings = []
    pixels = to_srgb(np.array(color, np.uint8).reshape(1, 1, 3), profile_of(primaries, transfer), warnings)
    assert warnings == []
    return pixels[0, 0].astype(int)


def test_srgb_changes_nothing():
    assert converted(1, 13, (200, 60, 61)).tolist() == [200, 60, 61]


@pytest.mark.parametrize(
    ("primaries", "color", "expected"),
    [(12, (200, 60, 60), (217, 42, 52)), (9, (150, 150, 150), (150, 150, 150)), (12, (0, 0, 0), (0, 0, 0))],
)
def test_wide_gamut_colors_are_converted_to_srgb(primaries, color, expected):
    assert np.abs(converted(primaries, 13, color) - expected).max() <= 2


def test_linear_samples_become_brighter():
    assert np.abs(converted(1, 8, (55, 55, 55)) - 128).max() <= 1


@pytest.mark.parametrize(("primaries", "transfer"), [(9, 16), (9, 18), (2, 13), (1, 2)])
def test_hdr_and_unknown_code_points_have_no_profile(primaries, transfer):
    assert profile_of(primaries, transfer) is None
