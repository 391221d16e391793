import io
import struct

import numpy as np
import pytest
from PIL import Image

from darkroom.tasks.errors import ErrorCode
from tests.fuzz.samples import other_profile, samples
from tests.tasks.imaging.formats.bitmaps import FOUR_COLORS, bitmap
from tests.tasks.imaging.reference import SIZE, encoded, facts_of, failure, lossless, picture, run


def test_rle_and_packed_pixels_equal_those_of_pillow():
    for name in ("bmp/rle", "bmp/555", "bmp/palette"):
        with Image.open(io.BytesIO(samples()[name])) as image:
            expected = np.array(image.convert("RGB"))
        assert np.array_equal(lossless(samples()[name], width=61, height=43), expected), name


@pytest.mark.parametrize("header", [12, 16, 40, 52, 56, 64, 108, 124, 41])
def test_a_bitmap_is_recognised_by_the_size_of_its_second_header(header):
    data = b"BM" + bytes(12) + struct.pack("<I", header)
    assert failure(data)[0] is (ErrorCode.DECODE_UNKNOWN_FORMAT if header == 41 else ErrorCode.DECODE_TRUNCATED)


@pytest.mark.parametrize("name", ["bmp/rgb", "bmp/rgba", "bmp/palette", "bmp/bits", "bmp/rle", "bmp/555"])
def test_a_bitmap_without_a_file_header_gives_the_same_pixels(name):
    data = samples()[name]
    bare = data[14:]
    assert facts_of(bare) == facts_of(data)
    assert np.array_equal(lossless(bare, width=61, height=43), lossless(data, width=61, height=43))


def test_a_bitmap_with_the_oldest_header_is_read():
    data = struct.pack("<IHHHH", 12, 4, 1, 1, 8) + bytes(range(256)) * 3 + bytes((0, 1, 2, 85))
    assert lossless(data, width=4, height=1)[0, :, ::-1].tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [255, 0, 1]]


@pytest.mark.parametrize("header", [40, 124])
def test_alpha_in_16_bit_pixels(header):
    # alpha 1 bit, colours 5 bits each
    masks = (0x7C00, 0x3E0, 0x1F, 0x8000)
    rows = np.array([[0x8000, 0x7FFF, 0xFFFF, 0x7C00], [0x801F, 0x83E0, 0xFC00, 0xC210]], "<u2").tobytes()
    out = lossless(
        bitmap(rows, 16, masks=masks, header=header, compression=6 if header == 40 else 3), width=4, height=2
    )
    assert out[1].tolist() == [[0, 0, 0, 255], [255, 255, 255, 0], [255, 255, 255, 255], [255, 0, 0, 0]]
    assert out[0].tolist() == [[0, 0, 255, 255], [0, 255, 0, 255], [255, 0, 0, 255], [132, 132, 132, 255]]


@pytest.mark.parametrize(
    ("bits", "masks"),
    [
        (16, (0xF00, 0xF0, 0xF, 0xF000)),
        (16, (0xF00, 0xF0, 0xF, 0)),
        (32, (0x3FF00000, 0xFFC00, 0x3FF, 0)),
        (32, (0xFF00, 0xFF0000, 0xFF000000, 0xFF)),
    ],
)
def test_bit_fields_of_any_layout(bits, masks):
    rng = np.random.default_rng(4)
    stored = rng.integers(0, 1 << bits, (80, 120), np.uint64).astype(f"<u{bits // 8}")
    out = lossless(bitmap(stored[::-1].tobytes(), bits, size=(120, 80), masks=masks), **SIZE)
    expected = [np.rint((stored.astype(np.int64) & mask) / mask * 255) for mask in masks if mask]
    assert np.array_equal(out, np.dstack(expected))


def test_bit_fields_with_gaps_are_refused_and_named():
    code, error = failure(bitmap(bytes(32), 32, masks=(0xF0F, 0xF000, 0xF0000, 0)))
    assert code is ErrorCode.DECODE_UNSUPPORTED and "bit fields f0f f000 f0000 0" in error.message


@pytest.mark.parametrize("bits", [16, 32])
def test_an_alpha_of_zero_everywhere_is_ignored(bits):
    masks = (0xF00, 0xF0, 0xF, 0xF000) if bits == 16 else (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    colors = np.random.default_rng(4).integers(0, 1 << bits // 4 * 3, (80, 120)).astype(f"<u{bits // 8}")
    data = bitmap(colors.tobytes(), bits, size=(120, 80), masks=masks)
    result = run(data, **SIZE, format="png")
    assert result.warnings == ("alpha_ignored",) and result.channels == 3
    seen = bytearray(data)
    seen[-1] |= 0xF0
    assert run(bytes(seen), **SIZE, format="png").channels == 4


def test_an_embedded_profile_is_applied():
    rows = picture()[::-1, :, ::-1].tobytes()
    data = bitmap(rows, 24, size=(120, 80), compression=0, profile=other_profile())
    assert np.array_equal(
        lossless(data, **SIZE), lossless(encoded(picture(), "PNG", icc_profile=other_profile()), **SIZE)
    )
    linked = data.replace(b"DEBM", b"KNIL")
    assert run(linked).warnings == ("icc_ignored",) and np.array_equal(lossless(linked, **SIZE), picture())


def test_two_bits_per_pixel():
    rows = bytes((0b00011011, 0, 0, 0, 0b11100100, 0, 0, 0))
    out = lossless(bitmap(rows, 2, compression=0, palette=FOUR_COLORS, header=40), width=4, height=2)
    assert out.tolist() == [
        [[9, 9, 9], [0, 0, 255], [0, 255, 0], [255, 0, 0]],
        [[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]],
    ]
