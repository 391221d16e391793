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
sides = st.integers(1, 5000)
recipes = st.builds(
    Recipe,
    width=st.integers(1, 2000),
    height=st.integers(1, 2000),
    fit=st.sampled_from(FITS),
    upscale=st.booleans(),
)


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


def test_contain_without_upscale_centres_the_picture_unscaled():
    geometry = plan((500, 375), (600, 600), "contain", upscale=False)
    assert (geometry.scale_x, geometry.scale_y, geometry.left, geometry.top) == (1, 1, 50, 112)


def test_cover_crops_the_middle():
    geometry = plan((500, 375), (600, 600), "cover")
    assert (geometry.resized_width, geometry.left, geometry.top) == (800, -100, 0)


@given(sides, sides, recipes)
def test_laws_of_geometry(width, height, recipe):
    geometry = plan_geometry(width, height, recipe)
    box, size = (recipe.width, recipe.height), (geometry.width, geometry.height)
    assert min(size) >= 1
    if recipe.fit == "outside":
        assert not recipe.upscale or (size[0] >= box[0] and size[1] >= box[1])
    else:
        assert size[0] <= box[0] and size[1] <= box[1]
    if recipe.upscale and recipe.fit in {"fill", "cover", "contain"}:
        assert size == box
    if not recipe.upscale:
        assert geometry.scale_x <= 1 and geometry.scale_y <= 1
    if recipe.fit in {"inside", "contain"} and recipe.upscale:
        assert geometry.resized_width == box[0] or geometry.resized_height == box[1]


long_sides = st.integers(1, 1_000_000) | st.sampled_from([1, 32_767, 32_768, 65_535, 65_536, 1_000_000])
any_recipe = st.builds(
    Recipe,
    width=st.integers(1, 16_383),
    height=st.integers(1, 16_383),
    fit=st.sampled_from(FITS),
    upscale=st.booleans(),
)


@given(long_sides, long_sides, any_recipe)
def test_a_picture_on_its_side_is_laid_out_on_its_side(width, height, recipe):
    turned = recipe.model_copy(update={"width": recipe.height, "height": recipe.width})
    one, other = plan_geometry(width, height, recipe), plan_geometry(height, width, turned)
    assert (one.width, one.height, one.left, one.top) == (other.height, other.width, other.top, other.left)
    assert (one.resized_width, one.resized_height) == (other.resized_height, other.resized_width)
    assert (one.crops, one.pads) == (other.crops, other.pads)


@given(long_sides, long_sides, any_recipe)
def test_what_a_plan_keeps_lies_within_what_it_resizes(width, height, recipe):
    geometry = plan_geometry(width, height, recipe)
    for resized, size, offset in (
        (geometry.resized_width, geometry.width, geometry.left),
        (geometry.resized_height, geometry.height, geometry.top),
    ):
        assert resized >= 1 and size >= 1
        if resized >= size:  # cropped, or as it is
            assert offset <= 0 and -offset + size <= resized
        else:  # padded
            assert offset >= 0 and offset + resized <= size
    if recipe.fit == "fill":
        assert not geometry.crops and not geometry.pads
    assert (not geometry.crops or recipe.fit == "cover") and (not geometry.pads or recipe.fit == "contain")


@given(sides, sides, recipes)
def test_scale_and_offset_map_the_corners(width, height, recipe):
    geometry = plan_geometry(width, height, recipe)
    for source, scale, offset, out, lower in (
        (width, geometry.scale_x, geometry.left, geometry.width, geometry.left),
        (height, geometry.scale_y, geometry.top, geometry.height, geometry.top),
    ):
        start, end = offset, source * scale + offset
        margin_before, margin_after = start, out - end
        # What is cropped or padded is so on both sides alike, but for an odd pixel.
        assert abs(margin_after - margin_before) <= 1 + 1e-6
        assert start == lower
        if recipe.fit in {"fill", "inside", "outside"}:
            assert start == 0 and math.isclose(end, out)


@given(st.integers(50, 5000), st.integers(50, 5000), recipes)
def test_aspect_ratio_is_kept_within_half_a_pixel(width, height, recipe):
    if recipe.fit == "fill":
        return
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
def test_cover_of_a_thin_strip_needs_no_giant(method):
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
