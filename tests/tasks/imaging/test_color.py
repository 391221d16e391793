"""Profiles, CMYK, transparency on a background, depths, gray."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.fuzz.samples import other_profile
from tests.tasks.imaging.reference import SIZE, SRGB, encoded, facts_of, jpeg, lossless, mean_difference, picture, run


def test_gray_output_is_luma():
    pixels = picture(160, 80)
    out = lossless(jpeg(pixels, subsampling=0), width=160, height=80, color="gray")
    assert out.shape == (80, 160)
    assert mean_difference(out, np.array(Image.fromarray(pixels).convert("L"))) < 1.5


def test_an_srgb_profile_changes_nothing():
    pixels = picture()
    assert run(jpeg(pixels, icc_profile=SRGB)).data == run(jpeg(pixels)).data


def test_another_profile_is_converted_as_littlecms_does():
    pixels = picture(160, 120)
    profile = other_profile()
    data = jpeg(pixels, subsampling=0, icc_profile=profile)
    with Image.open(io.BytesIO(data)) as image:
        expected = ImageCms.profileToProfile(
            image,
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            outputMode="RGB",
        )
    out = lossless(data, width=160, height=120)
    assert mean_difference(out, np.array(expected)) < 1.5
    assert mean_difference(out, pixels) > 20
    as_png = lossless(encoded(pixels, "PNG", icc_profile=profile), width=160, height=120)
    assert mean_difference(out, as_png) < 2


def test_a_profile_leaves_alpha_unchanged():
    pixels = np.dstack((picture(), picture()[:, :, 1]))
    out = lossless(encoded(pixels, "PNG", icc_profile=other_profile()), **SIZE)
    # The profile swaps the primaries of red and blue, so the conversion swaps their values.
    assert mean_difference(out, pixels[:, :, [2, 1, 0, 3]]) < 1.5
    assert np.array_equal(out[:, :, 3], pixels[:, :, 3])


@pytest.mark.parametrize("profile", [b"not a profile at all", SRGB[:200]])
def test_an_invalid_profile_is_ignored_with_a_warning(profile):
    pixels = picture()
    result = run(jpeg(pixels, icc_profile=profile))
    assert result.warnings == ("icc_invalid",)
    assert result.data == run(jpeg(pixels)).data


def test_a_profile_of_another_color_space_is_ignored_with_a_warning():
    gray = picture()[:, :, 0]
    result = run(jpeg(gray, icc_profile=other_profile()))
    assert result.warnings == ("icc_ignored",) and result.data == run(jpeg(gray)).data


def test_cmyk_is_converted_as_pillow_does():
    image = Image.fromarray(picture(160, 120)).convert("CMYK")
    data = jpeg(image, subsampling=0)
    assert facts_of(data).mode == "CMYK"
    with Image.open(io.BytesIO(data)) as reopened:
        expected = np.array(reopened.convert("RGB"))
    assert mean_difference(lossless(data, width=160, height=120), expected) < 1
    assert mean_difference(expected, picture(160, 120)) < 5


def test_half_transparent_pixels_are_mixed_with_the_background():
    pixels = np.full((80, 120, 4), (200, 100, 0, 128), np.uint8)
    out = lossless(encoded(pixels, "PNG"), **SIZE, color="gray", background="#0000ff")
    mixed = np.array([[[200 * 128 / 255, 100 * 128 / 255, 255 * 127 / 255]]])
    luma = mixed @ [0.299, 0.587, 0.114]
    assert np.abs(out - luma[0, 0]).max() <= 1
