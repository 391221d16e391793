import io
import zlib

import numpy as np
import pytest
from PIL import Image

from darkroom.tasks.errors import ErrorCode
from darkroom.tasks.imaging import bands
from tests.fuzz import build
from tests.fuzz.samples import other_profile, samples
from tests.tasks.imaging.reference import (
    SIZE,
    encoded,
    exif_with,
    facts_of,
    failure,
    lossless,
    picture,
    pixels_of,
    rounded,
    run,
    stored,
)

PALETTE = Image.fromarray(picture()).quantize(8)


def test_exif_after_the_pixels_is_found():
    body = encoded(stored(picture(), 8), "PNG")
    exif = exif_with(8).removeprefix(b"Exif\0\0")
    data = body[:-12] + build.png_chunk(b"eXIf", exif) + body[-12:]
    assert facts_of(data).orientation == 8
    assert np.array_equal(lossless(data, **SIZE), picture())


@pytest.mark.parametrize("color_type", [2, 4, 6])
def test_16_bit_colors_are_rounded_not_cut(color_type, monkeypatch):
    channels = {2: 3, 4: 2, 6: 4}[color_type]
    samples_ = np.random.default_rng(3).integers(0, 65536, (80, 120, channels)).astype(np.uint16)
    data = build.png(120, 80, build.png_rows(samples_), bits=16, color_type=color_type)
    expected = rounded(samples_)
    if channels == 2:
        expected = expected[:, :, [0, 0, 0, 1]]
    assert np.array_equal(lossless(data, **SIZE), expected)
    monkeypatch.setattr(bands, "BAND_PIXELS", 100)
    assert np.array_equal(lossless(data, **SIZE), expected)
    assert np.array_equal(lossless(data[:-12], **SIZE), expected), "without the last chunk"


def test_16_bit_gray_spans_black_to_white():
    samples = np.linspace(0, 65535, 80 * 120).astype(np.uint16).reshape(80, 120)
    data = encoded(samples, "PNG")
    assert facts_of(data).mode == "I;16"
    assert np.array_equal(lossless(data, **SIZE, color="gray"), rounded(samples))


def test_a_palette_with_transparency():
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


def test_a_transparent_color():
    pixels = np.zeros((80, 120, 3), np.uint8)
    pixels[:, 60:] = (10, 20, 30)
    data = encoded(pixels, "PNG", transparency=(10, 20, 30))
    assert lossless(data, **SIZE)[0, :, 3].tolist() == [255] * 60 + [0] * 60


def test_gray_with_alpha():
    pixels = np.dstack((picture()[:, :, 0], np.full((80, 120), 77, np.uint8)))
    out = lossless(encoded(pixels, "PNG"), **SIZE)
    assert np.array_equal(out, pixels[:, :, [0, 0, 0, 1]])


def test_a_picture_that_is_not_in_the_animation_is_one_more_frame():
    data = encoded(picture(), "PNG", save_all=True, append_images=[PALETTE.convert("RGB")], default_image=True)
    with Image.open(io.BytesIO(data)) as image:
        assert facts_of(data).frames == image.n_frames == 2


def damaged(data, position):
    return data[:position] + bytes((data[position] ^ 0x10,)) + data[position + 1 :]


@pytest.mark.parametrize("kind", [b"IHDR", b"PLTE", b"tRNS", b"iCCP", b"eXIf", b"tEXt", b"IDAT", b"IEND"])
def test_every_checksum_counts(kind):
    whole = encoded(PALETTE, "PNG", transparency=3, icc_profile=other_profile(), exif=exif_with(6))
    text = build.png_chunk(b"tEXt", b"Title\0hello")
    data = whole[:33] + text + whole[33:]
    assert run(data).warnings == ()
    code, error = failure(damaged(data, data.index(kind) + (4 if kind == b"IEND" else 5)))
    assert code is ErrorCode.DECODE_CORRUPT and kind.decode() in error.message


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_an_end_of_zeros_is_refused(part):
    data = encoded(picture(), "PNG")
    start = int(len(data) * part)
    assert failure(data[:start] + bytes(len(data) - start))[0] is ErrorCode.DECODE_CORRUPT
    # If the file is cut as well, there is no checksum left.
    code, _ = failure(data[:start] + bytes(len(data) - start - 20))
    assert code is ErrorCode.DECODE_TRUNCATED


def test_the_decoder_sees_neither_texts_nor_animation(monkeypatch):
    seen = []
    text = build.png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 21)))  # more than Pillow allows
    data = samples()["png/animated"]
    data = data[:33] + text + data[33:-12] + text + data[-12:]
    monkeypatch.setattr("PIL.PngImagePlugin.PngStream.chunk_zTXt", lambda *_: seen.append("text"))
    monkeypatch.setattr("PIL.PngImagePlugin.PngStream.chunk_acTL", lambda *_: seen.append("animation"))
    assert run(data, **SIZE).data == run(samples()["png/rgb"], **SIZE).data
    assert seen == []


def test_a_profile_larger_than_pillow_reads_is_converted():
    profile = other_profile()
    padded = profile + bytes(2 << 20)
    assert lossless(encoded(picture(), "PNG", icc_profile=padded), **SIZE).tolist() == (
        lossless(encoded(picture(), "PNG", icc_profile=profile), **SIZE).tolist()
    )
