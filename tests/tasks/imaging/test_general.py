"""The general lane: formats, depths, palettes, transparency, profiles, animation, and the encoders."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from darkroom.tasks.imaging.gif import count_gif_frames
from darkroom.tasks.imaging.tiff import count_tiff_pages
from PIL import Image, ImageCms

from darkroom.tasks.errors import ErrorCode
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

SIZE = {"width": 120, "height": 80}
LOSSLESS = [
    ("PNG", {}, "png"),
    ("BMP", {}, "bmp"),
    ("PPM", {}, "ppm"),
    ("TIFF", {}, "tiff"),
    ("TIFF", {"compression": "tiff_lzw"}, "tiff"),
    ("TIFF", {"compression": "tiff_adobe_deflate"}, "tiff"),
    ("WEBP", {"lossless": True}, "webp"),
    ("JPEG2000", {}, "jpeg2000"),
]


def png16(samples, color_type):
    """A 16-bit PNG; Pillow writes none in colour."""
    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def rounded(samples, white=65535):
    return np.floor(samples.astype(np.float64) * 255 / white + 0.5).astype(np.uint8)


@pytest.mark.parametrize(("name", "options", "expected"), LOSSLESS)
def test_lossless_formats_give_their_pixels(name, options, expected):
    pixels = picture()
    data = encoded(pixels, name, **options)
    facts = facts_of(data)
    assert (facts.format, facts.mode, facts.width, facts.height, facts.frames) == (
        expected,
        "RGB",
        120,
        80,
        1,
    )
    assert np.array_equal(lossless(data, **SIZE), pixels)


def test_avif_is_read():
    pixels = picture()
    data = encoded(pixels, "AVIF", quality=95, subsampling="4:4:4")
    assert facts_of(data).format == "avif"
    assert mean_difference(lossless(data, **SIZE), pixels) < 3


def test_ico_is_read_at_its_largest():
    data = encoded(picture(64, 64), "ICO", sizes=[(16, 16), (48, 48)])
    facts = facts_of(data)
    assert (facts.format, facts.width, facts.height) == ("ico", 48, 48)
    assert run(data, **SIZE).channels == 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF", "AVIF"])
def test_orientation_is_applied_once_in_every_format(name, orientation):
    upright = picture()
    options = {"WEBP": {"lossless": True}, "AVIF": {"quality": 95, "subsampling": "4:4:4"}}.get(name, {})
    data = encoded(stored(upright, orientation), name, exif=exif_with(orientation), **options)
    result = run(data, format="png", **SIZE)
    facts = result.facts
    assert facts.orientation == orientation
    assert (facts.width, facts.height) == ((80, 120) if orientation >= 5 else (120, 80))
    assert mean_difference(pixels_of(result), upright) < 3
    assert result.scale_x == result.scale_y == 1


def test_orientation_of_a_compressed_tiff_is_applied_once():
    upright = picture()
    data = encoded(stored(upright, 6), "TIFF", exif=exif_with(6), compression="tiff_lzw")
    assert np.array_equal(lossless(data, **SIZE), upright)


def test_exif_behind_the_pixels_of_a_png_is_found():
    body = encoded(stored(picture(), 8), "PNG")
    exif = exif_with(8).removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    data = body[:-12] + chunk + body[-12:]
    assert facts_of(data).orientation == 8
    assert np.array_equal(lossless(data, **SIZE), picture())


@pytest.mark.parametrize(("color_type", "channels"), [(2, 3), (6, 4), (4, 2)])
def test_16_bit_color_png_is_rounded_not_cut(color_type, channels):
    samples = np.random.default_rng(1).integers(0, 65536, (80, 120, channels))
    out = lossless(png16(samples, color_type), **SIZE)
    expected = rounded(samples)
    if channels == 2:
        expected = expected[:, :, [0, 0, 0, 1]]
    assert np.array_equal(out, expected)


def test_16_bit_gray_png_spans_black_to_white():
    samples = np.linspace(0, 65535, 80 * 120).astype(np.uint16).reshape(80, 120)
    data = encoded(samples, "PNG")
    assert facts_of(data).mode == "I;16"
    assert np.array_equal(lossless(data, **SIZE, color="gray"), rounded(samples))


def test_16_bit_color_tiff_is_rounded_not_cut():
    samples = np.random.default_rng(1).integers(0, 65536, (80, 120, 3)).astype(np.uint16)
    data = cv2.imencode(".tiff", samples[:, :, ::-1])[1].tobytes()
    assert np.array_equal(lossless(data, **SIZE), rounded(samples))


def test_16_bit_gray_tiff_with_white_as_zero_is_inverted():
    samples = np.linspace(0, 65535, 80 * 120).astype(np.uint16).reshape(80, 120)
    data = encoded(samples, "TIFF", tiffinfo={262: 0})
    assert np.array_equal(lossless(data, **SIZE, color="gray"), 255 - rounded(samples))


@pytest.mark.parametrize("white", [1023, 65535])
def test_deep_pgm_is_scaled_by_its_own_white(white):
    samples = np.linspace(0, white, 80 * 120).astype(">u2").reshape(80, 120)
    data = f"P5 120 80 {white}\n".encode() + samples.tobytes()
    out = lossless(data, **SIZE, color="gray")
    assert np.abs(out.astype(int) - rounded(samples, white).astype(int)).max() <= 1
    assert out.min() == 0 and out.max() == 255


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_samples_without_a_white_are_refused(dtype):
    code, error = failure(encoded(np.ones((80, 120), dtype), "TIFF"))
    assert code is ErrorCode.DECODE_UNSUPPORTED and error.facts.width == 120


@pytest.mark.parametrize("name", ["PNG", "TIFF", "BMP", "PPM"])
def test_one_bit_is_black_and_white(name):
    bits = picture()[:, :, 0] > 128
    out = lossless(encoded(bits, name), **SIZE, color="gray")
    assert np.array_equal(out, np.where(bits, 255, 0))


def test_palette_with_transparency():
    image = Image.new("P", (120, 80))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(1, (60, 0, 120, 80))
    data = encoded(image, "PNG", transparency=1)
    kept = lossless(data, **SIZE)
    assert kept.shape == (80, 120, 4)
    assert kept[40, 30].tolist() == [255, 0, 0, 255] and kept[40, 90, 3] == 0
    flat = lossless(data, **SIZE, color="gray", background="#00ff00")
    assert flat[40, 90] == 150  # luma of pure green
    on_green = pixels_of(run(data, **SIZE, background="#00ff00"))
    assert np.abs(on_green[40, 110].astype(int) - [0, 255, 0]).max() < 10


def test_color_key_transparency():
    pixels = np.zeros((80, 120, 3), np.uint8)
    pixels[:, 60:] = (10, 20, 30)
    data = encoded(pixels, "PNG", transparency=(10, 20, 30))
    assert lossless(data, **SIZE)[0, :, 3].tolist() == [255] * 60 + [0] * 60


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


def test_half_transparent_is_mixed_with_the_background():
    pixels = np.full((80, 120, 4), (200, 100, 0, 128), np.uint8)
    out = lossless(encoded(pixels, "PNG"), **SIZE, color="gray", background="#0000ff")
    mixed = np.array([[[200 * 128 / 255, 100 * 128 / 255, 255 * 127 / 255]]])
    luma = mixed @ [0.299, 0.587, 0.114]
    assert np.abs(out - luma[0, 0]).max() <= 1


def test_gray_with_alpha():
    pixels = np.dstack((picture()[:, :, 0], np.full((80, 120), 77, np.uint8)))
    out = lossless(encoded(pixels, "PNG"), **SIZE)
    assert np.array_equal(out, pixels[:, :, [0, 0, 0, 1]])


def test_cmyk_tiff_is_converted():
    image = Image.fromarray(picture()).convert("CMYK")
    out = lossless(encoded(image, "TIFF"), **SIZE)
    assert np.array_equal(out, np.array(image.convert("RGB")))


def test_profile_of_a_transparent_png_is_converted_and_alpha_left():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb.replace(b"rXYZ", b"tmp1").replace(b"bXYZ", b"rXYZ").replace(b"tmp1", b"bXYZ")
    pixels = np.dstack((picture(), picture()[:, :, 1]))
    out = lossless(encoded(pixels, "PNG", icc_profile=swapped), **SIZE)
    # With red's and blue's primaries exchanged, so are their values.
    assert mean_difference(out, pixels[:, :, [2, 1, 0, 3]]) < 1.5
    assert np.array_equal(out[:, :, 3], pixels[:, :, 3])


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP", "TIFF"])
def test_animation_gives_its_first_frame_and_the_count(name):
    frames = [Image.fromarray(np.full((80, 120, 3), level, np.uint8)) for level in (10, 100, 200, 250)]
    data = encoded(frames[0], name, save_all=True, append_images=frames[1:])
    assert facts_of(data).frames == 4
    assert np.abs(lossless(data, **SIZE)[:, :, :3].astype(int) - 10).max() <= 2


def test_counting_frames_survives_loops():
    frame = b"\x2c" + bytes(9) + b"\x02" + b"\x00"
    assert count_gif_frames(b"GIF89a" + bytes(7) + frame * 200_000) == 200_000
    assert count_gif_frames(b"GIF89a") == 1
    looping = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 0) + struct.pack("<I", 8)
    assert count_tiff_pages(looping) == 1
    assert count_tiff_pages(b"II*\0") == 1


@pytest.mark.parametrize("image_format", ["jpeg", "png", "webp"])
@pytest.mark.parametrize("color", ["rgb", "gray"])
def test_outputs_are_what_they_say(image_format, color):
    result = run(encoded(picture(), "PNG"), width=64, height=48, format=image_format, color=color)
    with Image.open(io.BytesIO(result.data)) as image:
        assert image.format.lower() == result.format == image_format
        assert image.size == (result.width, result.height) == (64, 48)
        assert len(image.getbands()) == result.channels
        assert not {"exif", "icc_profile", "xmp", "comment"} & set(image.info)


@pytest.mark.parametrize("alpha", [255, 90])
@pytest.mark.parametrize("image_format", ["png", "webp"])
def test_alpha_channels_are_counted_as_a_reader_sees_them(image_format, alpha):
    pixels = np.dstack((picture(), np.full((80, 120), alpha, np.uint8)))
    result = run(encoded(pixels, "PNG"), format=image_format, **SIZE)
    with Image.open(io.BytesIO(result.data)) as image:
        assert len(image.getbands()) == result.channels


@pytest.mark.parametrize("image_format", ["jpeg", "webp"])
def test_quality_changes_the_size(image_format):
    data = encoded(picture(), "PNG")
    sizes = [len(run(data, format=image_format, quality=quality).data) for quality in (10, 60, 95)]
    assert sizes == sorted(sizes) and sizes[0] < sizes[2] / 2


def test_contain_pads_with_the_opaque_background():
    pixels = np.dstack((picture(), np.full((80, 120), 90, np.uint8)))
    out = lossless(encoded(pixels, "PNG"), width=120, height=120, fit="contain", background="#0a141e")
    assert out[0, 0].tolist() == [10, 20, 30, 255] and out[-1, -1].tolist() == [10, 20, 30, 255]
    assert np.array_equal(out[20:100], pixels)
    gray = lossless(jpeg(picture()), width=120, height=120, fit="contain", background="#0a141e", color="gray")
    assert gray[0, 0] == round(0.299 * 10 + 0.587 * 20 + 0.114 * 30)


def test_shrinking_is_antialiased_except_nearest():
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
def test_named_filters_are_pillows(method):
    pixels = picture()
    names = {"linear": "BILINEAR", "cubic": "BICUBIC", "lanczos": "LANCZOS"}
    expected = Image.fromarray(pixels).resize((50, 70), Image.Resampling[names[method]])
    out = lossless(encoded(pixels, "PNG"), width=50, height=70, filter=method)
    assert np.array_equal(out, np.array(expected))
