import io
import struct
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
def test_16_bit_colors_are_rounded_not_truncated(color_type, monkeypatch):
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


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_transparent_gray(bits):
    levels = np.tile(np.arange(1 << bits, dtype=np.uint8), (9, 8))
    key = (1 << bits) // 2
    rows = b"".join(b"\0" + np.packbits(np.unpackbits(row[:, None], axis=1)[:, -bits:]).tobytes() for row in levels)
    chunk = build.png_chunk(b"tRNS", struct.pack(">H", key))
    height, width = levels.shape
    data = build.png(width, height, rows, bits=bits, color_type=0, before=chunk)
    out = lossless(data, width=width, height=height)
    assert np.array_equal(out[:, :, 3], np.where(levels == key, 0, 255))
    assert np.array_equal(out[:, :, 0], levels * (255 // ((1 << bits) - 1)))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_transparent_color_of_16_bits_is_compared_at_full_depth(channels):
    samples_ = np.random.default_rng(5).integers(40000, 65536, (80, 120, channels)).astype(np.uint16)
    samples_[10:20, 30:50] = range(1000, 1000 + channels)
    samples_[40:50] = range(1001, 1001 + channels)  # differs only in the lower 8 bits
    chunk = build.png_chunk(b"tRNS", struct.pack(f">{channels}H", *range(1000, 1000 + channels)))
    data = build.png(120, 80, build.png_rows(samples_), bits=16, color_type=channels - 1, before=chunk)
    out = lossless(data, **SIZE)
    assert out[40:50, :, 3].all() and not out[10:20, 30:50, 3].any() and (out[:, :, 3] == 0).sum() == 200
    assert np.array_equal(
        out[:, :, :3][out[:, :, 3] > 0], np.broadcast_to(rounded(samples_), (80, 120, 3))[out[:, :, 3] > 0]
    )


def test_samples_of_12_bits_in_16_add_a_warning():
    samples_ = np.random.default_rng(5).integers(0, 4096, (80, 120, 1)).astype(np.uint16)
    assert run(build.png(120, 80, build.png_rows(samples_), bits=16, color_type=0)).warnings == ("low_range",)


def test_gray_with_alpha():
    pixels = np.dstack((picture()[:, :, 0], np.full((80, 120), 77, np.uint8)))
    out = lossless(encoded(pixels, "PNG"), **SIZE)
    assert np.array_equal(out, pixels[:, :, [0, 0, 0, 1]])


def test_a_default_picture_outside_the_animation_counts_as_a_frame():
    data = encoded(picture(), "PNG", save_all=True, append_images=[PALETTE.convert("RGB")], default_image=True)
    with Image.open(io.BytesIO(data)) as image:
        assert facts_of(data).frames == image.n_frames == 2


def damaged(data, position):
    return data[:position] + bytes((data[position] ^ 0x10,)) + data[position + 1 :]


def with_metadata():
    """Return a PNG with a chunk of every kind that the tests damage."""
    whole = encoded(PALETTE, "PNG", transparency=3, icc_profile=other_profile(), exif=exif_with(6))
    chunks = [(b"tEXt", b"Title\0hello"), (b"pHYs", bytes(9)), (b"tIME", bytes(7)), (b"prVt", b"private")]
    chunks.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0xmp.did:0280117407206811AE56C1F6B2E0A5D2"))
    return whole[:33] + b"".join(build.png_chunk(*chunk) for chunk in chunks) + whole[33:]


@pytest.mark.parametrize("kind", [b"IHDR", b"PLTE", b"tRNS", b"iCCP", b"eXIf", b"IDAT"])
def test_a_wrong_checksum_of_a_chunk_that_affects_pixels_is_corrupt(kind):
    data = with_metadata()
    assert run(data).warnings == ()
    code, error = failure(damaged(data, data.index(kind) + 5))
    assert code is ErrorCode.DECODE_CORRUPT and kind.decode() in error.message


@pytest.mark.parametrize("kind", [b"tEXt", b"iTXt", b"pHYs", b"tIME", b"prVt", b"IEND"])
def test_a_wrong_checksum_of_another_chunk_adds_a_warning(kind):
    data = with_metadata()
    result = run(damaged(data, data.index(kind) + (4 if kind == b"IEND" else 5)))
    assert result.warnings == ("chunk_crc",) and result.data == run(data).data


@pytest.mark.parametrize("offset", range(4))
@pytest.mark.parametrize("kind", [b"tRNS", b"iCCP", b"eXIf"])
def test_a_damaged_type_of_a_chunk_that_affects_pixels_is_corrupt(kind, offset):
    data = with_metadata()
    assert failure(damaged(data, data.index(kind) + offset))[0] is ErrorCode.DECODE_CORRUPT


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt"])
@pytest.mark.parametrize("harm", ["keyword", "half of the keyword", "digits"])
def test_a_damaged_text_that_may_be_an_orientation_is_corrupt(kind, harm):
    whole = encoded(picture(), "PNG")
    data = whole[:33] + build.raw_profile(kind, exif_with(6)) + whole[33:]
    assert facts_of(data).orientation == 6
    start = data.index(build.RAW_PROFILE)
    if harm == "keyword":
        data = damaged(data, start + 3)
    elif harm == "half of the keyword":
        data = data[:start] + b"\xff" * 9 + data[start + 9 :]
    else:
        data = damaged(data, start + len(build.RAW_PROFILE) + 5)
    code, error = failure(data)
    assert code is ErrorCode.DECODE_CORRUPT and kind.decode() in error.message


@pytest.mark.parametrize("lost", range(1, 12))
def test_16_bit_colors_are_rounded_even_if_the_end_is_incomplete(lost):
    samples_ = np.random.default_rng(3).integers(0, 65536, (80, 120, 3)).astype(np.uint16)
    data = build.png(120, 80, build.png_rows(samples_), bits=16)
    assert np.array_equal(lossless(data[:-lost], **SIZE), rounded(samples_))


def test_16_bit_colors_are_rounded_even_if_the_end_is_damaged():
    samples_ = np.random.default_rng(3).integers(0, 65536, (80, 120, 3)).astype(np.uint16)
    data = build.png(120, 80, build.png_rows(samples_), bits=16)
    assert np.array_equal(lossless(damaged(data, len(data) - 1), **SIZE), rounded(samples_))


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_a_file_that_ends_in_zeros_is_refused(part):
    data = encoded(picture(), "PNG")
    start = int(len(data) * part)
    assert failure(data[:start] + bytes(len(data) - start))[0] is ErrorCode.DECODE_CORRUPT
    # If the file is cut as well, the checksum is missing.
    code, _ = failure(data[:start] + bytes(len(data) - start - 20))
    assert code is ErrorCode.DECODE_TRUNCATED


def test_text_and_animation_chunks_do_not_reach_the_decoder(monkeypatch):
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


def with_chunk(kind, content):
    data = encoded(picture(), "PNG")
    return data[:33] + build.png_chunk(kind, content) + data[33:]


def test_code_points_take_precedence_over_a_profile():
    profiled = encoded(picture(), "PNG", icc_profile=other_profile())
    as_srgb = profiled[:33] + build.png_chunk(b"cICP", bytes((1, 13, 0, 1))) + profiled[33:]
    assert np.array_equal(lossless(as_srgb, **SIZE), picture()) and run(as_srgb).warnings == ()


@pytest.mark.parametrize("points", [(9, 16, 0, 1), (9, 18, 0, 1), (1, 13, 1, 1), (1, 13, 0, 0), (99, 13, 0, 1)])
def test_code_points_without_a_profile_add_a_warning(points):
    data = with_chunk(b"cICP", bytes(points))
    assert run(data).warnings == ("cicp_ignored",) and np.array_equal(lossless(data, **SIZE), picture())


@pytest.mark.parametrize(
    ("gamma", "warnings"), [(45455, ()), (47000, ()), (100000, ("gamma_ignored",)), (0, ("gamma_ignored",))]
)
def test_a_gamma_far_from_that_of_srgb_adds_a_warning(gamma, warnings):
    data = with_chunk(b"gAMA", struct.pack(">I", gamma))
    assert run(data).warnings == warnings and np.array_equal(lossless(data, **SIZE), picture())
    with_srgb = data[:33] + build.png_chunk(b"sRGB", b"\0") + data[33:]
    assert run(with_srgb).warnings == ()
