"""Sizes, crops and the mapping from source to output, for every fit."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkroom.tasks.imaging.geometry import plan_geometry
from darkroom.tasks.settings import Recipe
from tests.tasks.imaging.reference import encoded, lossless, picture, pixels_of, run

FITS = ["fill", "cover", "contain", "inside", "outside"]
sides = st.integers(1, 5000) | st.integers(1, 1_000_000) | st.sampled_from([1, 32_767, 32_768, 65_535, 65_536])
boxes = st.integers(1, 2000) | st.integers(1, 16_383)
recipes = st.builds(Recipe, width=boxes, height=boxes, fit=st.sampled_from(FITS), upscale=st.booleans())


def plan(source, box, fit, upscale=True):
    return plan_geometry(*source, Recipe(width=box[0], height=box[1], fit=fit, upscale=upscale))


@pytest.mark.parametrize(
    ("fit", "upscale", "source", "expected"),
    [
        ("fill", True, (500, 375), (600, 600)),
        ("fill", False, (500, 1000), (500, 600)),
        ("inside", True, (500, 375), (600, 450)),
        ("inside", False, (500, 375), (500, 375)),
        ("inside", True, (1000, 333), (600, 200)),
        ("outside", True, (500, 375), (800, 600)),
        ("outside", False, (500, 375), (500, 375)),
        ("outside", False, (1200, 900), (800, 600)),
        ("cover", True, (500, 375), (600, 600)),
        ("cover", False, (500, 375), (500, 375)),
        ("cover", False, (800, 400), (600, 400)),
        ("contain", True, (500, 375), (600, 600)),
        ("contain", False, (500, 375), (600, 600)),
        ("inside", True, (10_000, 1), (600, 1)),
        ("inside", True, (800, 601), (600, 451)),  # 450.75
        ("inside", True, (1200, 1), (600, 1)),  # 0.5, rounded half up
        ("inside", True, (1200, 5), (600, 3)),  # 2.5, rounded half up
    ],
)
def test_output_sizes(fit, upscale, source, expected):
    geometry = plan(source, (600, 600), fit, upscale)
    assert (geometry.width, geometry.height) == expected


@pytest.mark.parametrize(("fit", "scale", "left", "top"), [("contain", 1, 50, 112), ("cover", 1.6, -100, 0)])
def test_the_picture_is_centred(fit, scale, left, top):
    geometry = plan((500, 375), (600, 600), fit, upscale=fit == "cover")
    assert (geometry.scale_x, geometry.scale_y, geometry.left, geometry.top) == (scale, scale, left, top)


@given(sides, sides, recipes)
def test_sizes_and_offsets_of_a_plan(width, height, recipe):
    geometry = plan_geometry(width, height, recipe)
    box, size = (recipe.width, recipe.height), (geometry.width, geometry.height)
    assert (not geometry.crops or recipe.fit == "cover") and (not geometry.pads or recipe.fit == "contain")
    if recipe.fit == "outside":
        assert not recipe.upscale or (size[0] >= box[0] and size[1] >= box[1])
    else:
        assert size[0] <= box[0] and size[1] <= box[1]
    if recipe.upscale and recipe.fit in {"fill", "cover", "contain"}:
        assert size == box
    if recipe.upscale and recipe.fit in {"inside", "contain"}:
        assert geometry.resized_width == box[0] or geometry.resized_height == box[1]
    for source, resized, out, scale, offset in (
        (width, geometry.resized_width, geometry.width, geometry.scale_x, geometry.left),
        (height, geometry.resized_height, geometry.height, geometry.scale_y, geometry.top),
    ):
        assert resized >= 1 and out >= 1 and (recipe.upscale or scale <= 1)
        assert math.isclose(source * scale, resized)
        # Crop and padding are the same on both sides, but for an odd pixel at the end.
        assert 0 <= abs(out - resized - offset) - abs(offset) <= 1
        assert offset <= 0 if resized >= out else offset >= 0


@given(sides, sides, recipes)
def test_swapping_width_and_height_swaps_the_plan(width, height, recipe):
    turned = recipe.model_copy(update={"width": recipe.height, "height": recipe.width})
    one, other = plan_geometry(width, height, recipe), plan_geometry(height, width, turned)
    assert (one.width, one.height, one.left, one.top) == (other.height, other.width, other.top, other.left)
    assert (one.resized_width, one.resized_height) == (other.resized_height, other.resized_width)
    assert (one.crops, one.pads) == (other.crops, other.pads)


@given(st.integers(50, 5000), st.integers(50, 5000), recipes.filter(lambda recipe: recipe.fit != "fill"))
def test_aspect_ratio_is_kept_within_half_a_pixel(width, height, recipe):
    geometry = plan_geometry(width, height, recipe)
    off_x = abs(geometry.resized_width - width * geometry.scale_y)
    off_y = abs(geometry.resized_height - height * geometry.scale_x)
    assert off_x <= 0.5 + 1e-6 or off_y <= 0.5 + 1e-6 or 1 in (geometry.resized_width, geometry.resized_height)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("upscale", [True, False])
@pytest.mark.parametrize("box", [(60, 60), (90, 30), (300, 250)])
@pytest.mark.parametrize("method", ["auto", "nearest", "area", "linear", "cubic", "lanczos"])
def test_a_marked_square_lands_where_the_mapping_says(fit, upscale, box, method):
    pixels = np.zeros((80, 120, 3), np.uint8)
    pixels[20:60, 40:90] = 255  # x 40..90, y 20..60
    data = encoded(pixels, "PNG")
    recipe = {"width": box[0], "height": box[1], "fit": fit, "upscale": upscale, "filter": method}
    result = run(data, **recipe, format="png", background="#000000")
    gray = lossless(data, **recipe, background="#000000")[:, :, 0] / 255
    assert gray.shape == (result.height, result.width)
    for profile, low, high, scale, offset, size in (
        (gray.max(axis=0), 40, 90, result.scale_x, result.offset_x, result.width),
        (gray.max(axis=1), 20, 60, result.scale_y, result.offset_y, result.height),
    ):
        start = np.clip(low * scale + offset, 0, size)
        end = np.clip(high * scale + offset, 0, size)
        lit = np.flatnonzero(profile > 0.5)
        assert abs(lit[0] - start) <= 1 and abs(lit[-1] + 1 - end) <= 1


@pytest.mark.parametrize("method", ["auto", "lanczos", "nearest"])
def test_cover_crops_a_thin_strip_to_its_middle(method):
    pixels = np.repeat(picture(1, 3000), 2, axis=1)
    out = lossless(encoded(pixels, "PNG"), width=300, height=300, fit="cover", filter=method)
    assert out.shape == (300, 300, 3)
    middle = pixels[1499:1501].astype(int).mean(axis=(0, 1))
    assert np.abs(out.astype(int).mean(axis=(0, 1)) - middle).max() < 8


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 60), st.integers(1, 60), st.sampled_from(FITS))
@settings(max_examples=150, deadline=None)
def test_every_plan_can_be_carried_out(width, height, box_width, box_height, fit):
    data = encoded(picture(width, height), "PNG")
    for method in ("auto", "nearest", "cubic"):
        for upscale in (True, False):
            recipe = {"width": box_width, "height": box_height, "fit": fit, "upscale": upscale, "filter": method}
            result = run(data, **recipe, format="png")
            assert pixels_of(result).shape == (result.height, result.width, 3)
