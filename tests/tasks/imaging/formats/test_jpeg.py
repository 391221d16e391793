"""Scaled decoding, and damage."""

import io

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image

from darkroom.tasks.errors import ErrorCode
from darkroom.tasks.imaging.formats.jpeg import choose_scale
from tests.fuzz import build
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


@pytest.fixture
def sizes_decoded(monkeypatch):
    """Return a list to which every decode adds the height and width of its picture."""
    seen = []
    real = simplejpeg.decode_jpeg

    def spy(*args, **kwargs):
        pixels = real(*args, **kwargs)
        seen.append(pixels.shape[:2])
        return pixels

    monkeypatch.setattr(simplejpeg, "decode_jpeg", spy)
    return seen


@pytest.mark.parametrize(
    ("size", "needed", "eighths"),
    [
        ((1800, 1200), (600, 600), 4),
        ((1800, 1200), (600, 601), 8),
        ((1800, 1200), (1, 1), 1),
        ((1800, 1200), (5000, 1), 8),
        ((1201, 1200), (600, 600), 8),  # 600.5 columns leave less than one to spare
        ((1201, 1200), (599, 600), 4),
        ((7, 4000), (1, 1), 8),
    ],
)
def test_the_smallest_fast_scale_that_is_large_enough_is_chosen(size, needed, eighths):
    assert choose_scale(size, needed) == eighths
    reduced = [-(-length * eighths // 8) for length in size]
    decoded = simplejpeg.decode_jpeg(jpeg(picture(*size)), "RGB", min_width=reduced[0], min_height=reduced[1])
    assert list(decoded.shape[1::-1]) == reduced


@pytest.mark.parametrize(("decoding", "width"), [("fast", 300), ("balanced", 600), ("full", 1200)])
def test_the_decoded_size_follows_the_setting(sizes_decoded, decoding, width):
    run(jpeg(picture(1200, 1200)), width=220, height=200, jpeg_decoding=decoding)
    assert sizes_decoded == [(width, width)]


def test_reduction_respects_the_axes_of_a_turned_picture(sizes_decoded):
    upright = picture(800, 400)
    run(jpeg(stored(upright, 6), exif=exif_with(6)), width=400, height=100, jpeg_decoding="fast")
    assert sizes_decoded == [(400, 200)]  # stored 400 × 800, of which 100 × 400 is needed


def test_nearest_uses_pixels_of_the_full_size():
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


def bar_near_the_end(width, height, orientation, *, across):
    """Return a JPEG stored in this orientation, with a dark bar 30 to 46 pixels from the upright picture's end.

    The end is the right edge if `across`, else the bottom edge.
    """
    upright = np.full((height, width), 192, np.uint8)
    upright[(slice(None), slice(-46, -30)) if across else slice(-46, -30)] = 64
    return jpeg(stored(upright, orientation), quality=100, exif=exif_with(orientation))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("width", "height"), [(1201, 1203), (1604, 2401), (4001, 1205)])
def test_the_mapping_of_a_reduced_picture_is_exact(width, height, orientation):
    for across in (True, False):
        data = bar_near_the_end(width, height, orientation, across=across)
        length = width if across else height
        for fit in ("fill", "cover", "contain", "inside", "outside"):
            box = {"width": 300, "height": round(300 * height / width) - 1}
            for decoding, method in (("balanced", "auto"), ("balanced", "lanczos"), ("fast", "lanczos")):
                recipe = {"fit": fit, "jpeg_decoding": decoding, "filter": method, "color": "gray", "format": "png"}
                result = run(data, **box, **recipe)
                scale, offset = (result.scale_x, result.offset_x) if across else (result.scale_y, result.offset_y)
                line = np.median(pixels_of(result), axis=0 if across else 1)[: int(length * scale + offset)]
                start = len(line) - int(90 * scale)
                ink = 192 - line[start:]
                found = np.average(start + np.arange(len(ink)) + 0.5, weights=ink)
                assert abs(found - ((length - 38) * scale + offset)) < 0.05, (across, recipe)


def test_shrunk_outputs_match_those_of_a_png():
    for size in ((640, 480), (500, 333), (333, 500), (517, 391)):
        pixels = picture(*size)
        data = jpeg(pixels, quality=98, subsampling=0)
        for box in ((600, 600), (224, 224), (60, 50)):
            for fit in ("fill", "cover"):
                recipe = {"width": box[0], "height": box[1], "fit": fit}
                fast, general = lossless(data, **recipe), lossless(encoded(pixels, "PNG"), **recipe)
                assert mean_difference(fast, general) < 2, (size, recipe)


def test_the_default_recipe_gives_the_bytes_of_plain_codec_calls():
    data = jpeg(picture(3200, 2400))
    reduced = simplejpeg.decode_jpeg(data, "RGB", min_width=1600, min_height=1200)
    assert reduced.shape == (1200, 1600, 3)
    resized = cv2.resize(reduced, (600, 600), interpolation=cv2.INTER_AREA)
    assert run(data).data == simplejpeg.encode_jpeg(resized, 90, "RGB", "420")


def test_a_gray_source_becomes_three_equal_channels():
    data = jpeg(picture()[:, :, 0])
    assert facts_of(data).mode == "L"
    result = run(data, width=60, height=40)
    assert result.channels == 3 and pixels_of(result).shape == (40, 60, 3)
    out = lossless(data, width=60, height=40)
    assert np.array_equal(out[:, :, 0], out[:, :, 1]) and np.array_equal(out[:, :, 0], out[:, :, 2])


def test_a_cut_file_fails_unless_decoding_is_tolerant():
    pixels = picture(400, 400)
    data = jpeg(pixels)
    cut = data[: len(data) // 2]
    code, error = failure(cut)
    assert code is ErrorCode.DECODE_TRUNCATED
    assert (error.facts.width, error.facts.height) == (400, 400)
    recipe = {"width": 400, "height": 400, "damage": "tolerant"}
    kept = run(cut, **recipe)
    assert kept.warnings == ("truncated",) and kept.data == run(cut, **recipe).data
    assert mean_difference(pixels_of(kept)[:100], pixels_of(run(data, **recipe))[:100]) < 1


def test_tolerant_decoding_refuses_a_file_without_pixels():
    data = jpeg(picture(400, 400))
    code, error = failure(data[: data.index(b"\xff\xda") + 14], damage="tolerant")
    assert code is ErrorCode.DECODE_TRUNCATED and error.facts.width == 400


def test_data_after_the_end_is_ignored():
    data = jpeg(picture())
    result = run(data + jpeg(picture(8, 8)))
    assert result.data == run(data).data and result.warnings == ()


def test_a_missing_middle_is_corrupt():
    data = jpeg(picture(400, 400))
    code, _ = failure(data[: len(data) // 2] + data[-2:])
    assert code is ErrorCode.DECODE_CORRUPT


def test_a_profile_of_too_many_parts_is_ignored_with_a_warning():
    data = jpeg(picture())
    parts = b"".join(build.jpeg_segment(0xE2, b"ICC_PROFILE\0" + bytes((i % 256, 255)) + bytes(9)) for i in range(256))
    assert "icc_invalid" in run(data[:2] + parts + data[2:]).warnings


@pytest.mark.parametrize(
    ("offset", "value", "code"),
    [
        (0, b"\xc5", ErrorCode.DECODE_UNSUPPORTED),  # hierarchical
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


@pytest.mark.parametrize(
    ("process", "name"),
    [(0xC5, "hierarchical sequential"), (0xCB, "arithmetic lossless"), (0xDE, "hierarchical"), (0xF7, "JPEG-LS")],
)
def test_errors_name_unsupported_coding_processes(process, name):
    code, error = failure(build.lossless_jpeg(picture(20, 10), process=process))
    assert code is ErrorCode.DECODE_UNSUPPORTED and f"process is {name}." in error.message
    assert (error.facts.width, error.facts.height) == (20, 10)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_lossless_jpeg_gives_its_pixels(channels):
    pixels = picture()[:, :, :channels]
    data = build.lossless_jpeg(pixels)
    out = lossless(data, width=120, height=80, color="gray" if channels == 1 else "rgb")
    assert np.array_equal(out.reshape(pixels.shape), pixels)
    assert lossless(data, width=12, height=8, jpeg_decoding="fast").shape == (8, 12, 3)  # never reduced


def test_tolerant_decoding_keeps_the_readable_pixels():
    data = jpeg(picture(300, 200))
    middle = len(data) * 2 // 3
    whole = lossless(data, width=300, height=200)
    for damage in (b"\xff\x02", data[100:400]):  # an invalid marker; bytes of something else
        damaged = data[:middle] + damage + data[middle + 2 :]
        assert failure(damaged)[0] is ErrorCode.DECODE_CORRUPT
        kept = run(damaged, width=300, height=200, format="png", damage="tolerant")
        assert kept.warnings == ("corrupt",)
        assert np.array_equal(pixels_of(kept)[:80], whole[:80])
