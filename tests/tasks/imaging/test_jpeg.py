"""The fast lane: reduction by DCT, orientation, profiles, CMYK, and damage that must not pass unseen."""

import io
import struct

import cv2
import numpy as np
import pytest
import simplejpeg
from darkroom.tasks.imaging.jpeg import reduced_size
from PIL import Image, ImageCms

from darkroom.tasks.errors import ErrorCode
from darkroom.tasks.imaging.exif import read_orientation
from tests.tasks.imaging.reference import (
    encoded,
    exif_with,
    facts_of,
    failure,
    jpeg,
    lossless,
    mean_difference,
    picture,
    pixels_of,
    run,
    stored,
)

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def other_profile():
    """An RGB profile whose red and blue primaries are exchanged: sRGB with two tags renamed."""
    return SRGB.replace(b"rXYZ", b"tmp1").replace(b"bXYZ", b"rXYZ").replace(b"tmp1", b"bXYZ")


@pytest.mark.parametrize(
    ("size", "needed", "expected"),
    [
        ((1800, 1200), (600, 600), (4, 900, 600)),
        ((1800, 1200), (600, 601), (5, 1125, 750)),
        ((1800, 1200), (1, 1), (1, 225, 150)),
        ((1800, 1200), (1576, 1), (8, 1800, 1200)),
        ((1800, 1200), (5000, 1), (8, 1800, 1200)),
        ((500, 375), (60, 40), (1, 63, 47)),
    ],
)
def test_smallest_reduction_that_is_large_enough(size, needed, expected):
    assert reduced_size(*size, *needed) == expected
    data = jpeg(picture(*size))
    decoded = simplejpeg.decode_jpeg(data, "RGB", min_width=expected[1], min_height=expected[2])
    assert decoded.shape[1::-1] == expected[1:]


def test_reduction_respects_the_axes_of_a_turned_picture(monkeypatch):
    seen = []
    real = simplejpeg.decode_jpeg

    def spy(*args, **kwargs):
        pixels = real(*args, **kwargs)
        seen.append(pixels.shape[:2])
        return pixels

    monkeypatch.setattr(simplejpeg, "decode_jpeg", spy)
    upright = picture(800, 400)
    run(jpeg(stored(upright, 6), exif=exif_with(6)), width=400, height=100, fit="fill")
    assert seen == [(400, 200)]  # stored 400 × 800, of which 100 × 400 is needed


def test_nearest_takes_pixels_of_the_full_picture():
    pixels = picture(160, 160)
    data = jpeg(pixels)
    full = simplejpeg.decode_jpeg(data, "RGB")
    out = lossless(data, width=20, height=20, filter="nearest")
    assert np.array_equal(out, cv2.resize(full, (20, 20), interpolation=cv2.INTER_NEAREST_EXACT))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fit", ["fill", "cover", "contain", "inside", "outside"])
def test_every_orientation_gives_the_upright_picture(orientation, fit):
    upright = picture(240, 160)
    recipe = {"width": 90, "height": 70, "fit": fit}
    data = jpeg(stored(upright, orientation), subsampling=0, exif=exif_with(orientation))
    result = run(data, **recipe)
    assert result.facts.orientation == orientation
    assert (result.facts.width, result.facts.height) == ((160, 240) if orientation >= 5 else (240, 160))
    expected = lossless(encoded(upright, "PNG"), **recipe)
    assert mean_difference(lossless(data, **recipe), expected) < 2
    with Image.open(io.BytesIO(result.data)) as out:
        assert not out.getexif() and out.info.get("icc_profile") is None


@pytest.mark.parametrize("method", ["nearest", "linear", "lanczos"])
@pytest.mark.parametrize("box", [(60, 40), (480, 300), (60, 300)])
def test_orientation_with_other_filters_and_enlargement(method, box):
    upright = picture(120, 80)
    for orientation in (5, 8):
        data = encoded(stored(upright, orientation), "PNG", exif=exif_with(orientation))
        recipe = {"width": box[0], "height": box[1], "filter": method}
        assert mean_difference(lossless(data, **recipe), lossless(encoded(upright, "PNG"), **recipe)) < 1


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_in_both_byte_orders(order):
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, 6, 0)
    assert read_orientation(b"Exif\0\0" + head + struct.pack(order + "H", 1) + entry) == 6
    assert read_orientation(head + struct.pack(order + "H", 0)) == 1
    assert read_orientation(head + struct.pack(order + "H", 1) + entry[:7]) is None
    nine = struct.pack(order + "HHIHH", 0x0112, 3, 1, 9, 0)
    assert read_orientation(head + struct.pack(order + "H", 1) + nine) is None


def test_invalid_exif_is_a_warning_and_no_turn():
    result = run(jpeg(picture(), exif=b"Exif\0\0nonsense"))
    assert result.warnings == ("exif_invalid",) and result.facts.orientation == 1


def test_shrunk_output_matches_the_general_lane():
    for size in ((640, 480), (500, 333), (333, 500), (517, 391)):
        pixels = picture(*size)
        data = jpeg(pixels, quality=98, subsampling=0)
        for box in ((600, 600), (224, 224), (60, 50)):
            for fit in ("fill", "cover"):
                recipe = {"width": box[0], "height": box[1], "fit": fit}
                fast, general = lossless(data, **recipe), lossless(encoded(pixels, "PNG"), **recipe)
                assert mean_difference(fast, general) < 2, (size, recipe)


def test_the_default_recipe_is_the_bare_codec_calls():
    data = jpeg(picture(2000, 1500))
    reduced = simplejpeg.decode_jpeg(data, "RGB", min_width=600, min_height=600)
    assert reduced.shape == (750, 1000, 3)
    resized = cv2.resize(reduced, (600, 600), interpolation=cv2.INTER_AREA)
    assert run(data).data == simplejpeg.encode_jpeg(resized, 90, "RGB", "420")


def test_gray_source_becomes_three_equal_channels():
    data = jpeg(picture()[:, :, 0])
    assert facts_of(data).mode == "L"
    result = run(data, width=60, height=40)
    assert result.channels == 3 and pixels_of(result).shape == (40, 60, 3)
    out = lossless(data, width=60, height=40)
    assert np.array_equal(out[:, :, 0], out[:, :, 1]) and np.array_equal(out[:, :, 0], out[:, :, 2])


def test_gray_output_is_luma():
    pixels = picture(160, 80)
    out = lossless(jpeg(pixels, subsampling=0), width=160, height=80, color="gray")
    assert out.shape == (80, 160)
    assert mean_difference(out, np.array(Image.fromarray(pixels).convert("L"))) < 1.5


def test_srgb_profile_changes_nothing():
    pixels = picture()
    assert run(jpeg(pixels, icc_profile=SRGB)).data == run(jpeg(pixels)).data


def test_other_profile_is_converted_as_littlecms_does():
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


@pytest.mark.parametrize("profile", [b"not a profile at all", SRGB[:200]])
def test_invalid_profile_is_a_warning_and_taken_for_srgb(profile):
    pixels = picture()
    result = run(jpeg(pixels, icc_profile=profile))
    assert result.warnings == ("icc_invalid",)
    assert result.data == run(jpeg(pixels)).data


def test_profile_of_another_color_space_is_ignored():
    gray = picture()[:, :, 0]
    result = run(jpeg(gray, icc_profile=other_profile()))
    assert result.warnings == ("icc_ignored",) and result.data == run(jpeg(gray)).data


def test_cmyk_as_pillow_converts_it():
    image = Image.fromarray(picture(160, 120)).convert("CMYK")
    data = jpeg(image, subsampling=0)
    assert facts_of(data).mode == "CMYK"
    with Image.open(io.BytesIO(data)) as reopened:
        expected = np.array(reopened.convert("RGB"))
    assert mean_difference(lossless(data, width=160, height=120), expected) < 1
    assert mean_difference(expected, picture(160, 120)) < 5


def test_truncated_fails_or_is_kept():
    pixels = picture(400, 400)
    data = jpeg(pixels)
    cut = data[: len(data) // 2]
    code, error = failure(cut)
    assert code is ErrorCode.DECODE_TRUNCATED
    assert (error.facts.width, error.facts.height) == (400, 400)
    recipe = {"width": 400, "height": 400, "truncated": "keep"}
    kept = run(cut, **recipe)
    assert kept.warnings == ("truncated",) and kept.data == run(cut, **recipe).data
    assert mean_difference(pixels_of(kept)[:100], pixels_of(run(data, **recipe))[:100]) < 1


def test_nothing_is_kept_of_a_file_without_pixels():
    data = jpeg(picture(400, 400))
    code, error = failure(data[: data.index(b"\xff\xda") + 14], truncated="keep")
    assert code is ErrorCode.DECODE_TRUNCATED and error.facts.width == 400


def test_junk_in_the_header_is_repaired_and_said():
    data = jpeg(picture())
    position = data.index(b"\xff\xdb")
    result = run(data[:position] + b"junk" + b"\xff\xe1\x00\x04ab" + data[position:])
    assert result.warnings == ("header_repaired",)
    assert result.data == run(data).data


def test_undefined_scan_parameters_are_repaired():
    data = bytearray(jpeg(picture()))
    scan = data.index(b"\xff\xda")
    length = int.from_bytes(data[scan + 2 : scan + 4], "big")
    data[scan + 2 + length - 3 : scan + 2 + length] = b"\x00\x00\x00"
    result = run(bytes(data))
    assert result.warnings == ("header_repaired",) and result.data == run(jpeg(picture())).data


def test_padding_before_the_end_is_forgiven_and_lost_pixels_are_not():
    data = jpeg(picture())
    padded = run(data[:-2] + b"\x00" * 9 + data[-2:])
    assert padded.warnings == ("extraneous_data",) and padded.data == run(data).data
    code, _ = failure(data[:-2] + data[-40:-2] + data[-2:])
    assert code is ErrorCode.DECODE_CORRUPT


def test_trailing_data_after_the_end_is_ignored():
    data = jpeg(picture())
    result = run(data + jpeg(picture(8, 8)))
    assert result.data == run(data).data and result.warnings == ()


def test_missing_middle_is_corrupt():
    data = jpeg(picture(400, 400))
    code, _ = failure(data[: len(data) // 2] + data[-2:])
    assert code is ErrorCode.DECODE_CORRUPT


@pytest.mark.parametrize(
    ("offset", "value", "code"),
    [
        (0, b"\xc3", ErrorCode.DECODE_UNSUPPORTED),  # lossless
        (3, b"\x0c", ErrorCode.DECODE_UNSUPPORTED),  # 12 bits
        (4, b"\x00\x00", ErrorCode.DECODE_CORRUPT),  # no height
        (4, b"\xff\xff\xff\xff", ErrorCode.DECODE_TOO_MANY_PIXELS),
    ],
)
def test_frame_headers_that_are_refused(offset, value, code):
    data = bytearray(jpeg(picture()))
    frame = data.index(b"\xff\xc0") + 1
    data[frame + offset : frame + offset + len(value)] = value
    if code is ErrorCode.DECODE_TOO_MANY_PIXELS:
        assert failure(bytes(data))[1].facts.width == 65535
    assert failure(bytes(data))[0] is code
