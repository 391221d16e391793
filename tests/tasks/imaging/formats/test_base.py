"""Behaviour common to all formats that Pillow decodes."""

import io
import struct

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from darkroom.tasks.dataset.manifest import SCHEMA
from darkroom.tasks.errors import ErrorCode
from darkroom.tasks.imaging import SourceFacts
from tests.fuzz import build
from tests.fuzz.samples import samples
from tests.tasks.imaging.reference import SIZE, encoded, facts_of, failure, lossless, picture, pixels_of, run

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


@pytest.mark.parametrize(("name", "options", "expected"), LOSSLESS)
def test_lossless_formats_give_their_pixels(name, options, expected):
    pixels = picture()
    data = encoded(pixels, name, **options)
    facts = facts_of(data)
    assert facts == SourceFacts(expected, "RGB", 120, 80)
    assert np.array_equal(lossless(data, **SIZE), pixels)


@pytest.mark.parametrize("name", ["PNG", "TIFF", "BMP", "PPM"])
def test_one_bit_is_black_and_white(name):
    bits = picture()[:, :, 0] > 128
    out = lossless(encoded(bits, name), **SIZE, color="gray")
    assert np.array_equal(out, np.where(bits, 255, 0))


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP", "TIFF"])
def test_animations_give_their_first_frame_and_the_number_of_frames(name):
    frames = [Image.fromarray(np.full((80, 120, 3), level, np.uint8)) for level in (10, 100, 200, 250)]
    data = encoded(frames[0], name, save_all=True, append_images=frames[1:])
    assert facts_of(data).frames == 4
    assert np.abs(lossless(data, **SIZE)[:, :, :3].astype(int) - 10).max() <= 2


@pytest.mark.parametrize("name", ["png/animated", "webp/animated", "avif/animated", "gif/animated"])
def test_the_number_of_frames_is_right_and_fits_a_row(name):
    data = samples()[name]
    assert facts_of(data).frames == 2
    if name == "png/animated":
        position = data.index(b"acTL")
        control = struct.pack(">II", 1 << 31, 0)
        data = data[: position - 4] + build.png_chunk(b"acTL", control) + data[position + 16 :]
        frames = run(data).facts.frames
        assert frames == 100_000
        pa.array([frames], SCHEMA.field("frames").type)


def test_cmyk_is_converted():
    image = Image.fromarray(picture()).convert("CMYK")
    out = lossless(encoded(image, "TIFF"), **SIZE)
    assert np.array_equal(out, np.array(image.convert("RGB")))


def test_tolerant_decoding_keeps_the_readable_rows():
    pixels = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    data = bytearray(encoded(pixels, "TIFF", compression="tiff_adobe_deflate"))
    middle = len(data) // 2
    data[middle : middle + 300] = bytes(300)
    assert failure(bytes(data))[0] is ErrorCode.DECODE_CORRUPT
    result = run(bytes(data), width=300, height=200, format="png", damage="tolerant")
    assert result.warnings == ("corrupt",)
    assert np.array_equal(pixels_of(result)[:50], pixels[:50]) and not np.array_equal(pixels_of(result), pixels)


def test_tolerant_decoding_accepts_a_wrong_checksum():
    pixels = np.random.default_rng(0).integers(0, 256, (80, 120, 3), np.uint8)
    data = bytearray(encoded(pixels, "PNG"))
    data[data.index(b"IEND") - 6] ^= 1  # in the checksum of the pixels
    assert failure(bytes(data))[0] is ErrorCode.DECODE_CORRUPT
    result = run(bytes(data), **SIZE, format="png", damage="tolerant")
    assert "corrupt" in result.warnings and np.array_equal(pixels_of(result), pixels)


def test_tolerant_decoding_refuses_a_picture_without_readable_pixels():
    data = bytearray(encoded(picture(), "TIFF", compression="tiff_adobe_deflate"))
    with Image.open(io.BytesIO(data)) as image:
        for offset in image.tag_v2[273]:
            data[offset : offset + 8] = bytes(8)
    assert failure(bytes(data), damage="tolerant")[0] is ErrorCode.DECODE_CORRUPT
