import struct

import numpy as np
import pytest
from PIL import Image

from darkroom.tasks.errors import ErrorCode
from darkroom.tasks.imaging.formats.tga import TgaImage
from tests.tasks.imaging.reference import SIZE, encoded, facts_of, failure, lossless, picture, run

RGBA = np.dstack((picture(), picture()[:, :, 0]))


def tga(rows, bits, *, kind=2, descriptor=0x20, size=(4, 1), tail=b""):
    """Return a TGA whose top row is stored first."""
    return struct.pack("<BBBHHBHHHHBB", 0, 0, kind, 0, 0, 0, 0, 0, *size, bits, descriptor) + rows + tail


@pytest.mark.parametrize("compression", [None, "tga_rle"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
def test_every_color_mode_gives_its_pixels(mode, compression):
    image = Image.fromarray(RGBA).convert("RGB").quantize(16) if mode == "P" else Image.fromarray(RGBA).convert(mode)
    data = encoded(image, "TGA", compression=compression)
    assert (facts_of(data).format, facts_of(data).width) == ("tga", 120)
    expected = np.array(image.convert("RGBA" if "A" in mode else "RGB"))
    assert np.array_equal(lossless(data, **SIZE), expected) and run(data).warnings == ()


def test_rows_may_be_stored_bottom_up():
    data = encoded(Image.fromarray(picture()), "TGA", orientation=-1)
    assert np.array_equal(lossless(data, **SIZE), picture())


def test_an_alpha_of_zero_everywhere_is_ignored():
    data = tga(bytes((1, 2, 3, 0)) * 4, 32, descriptor=0x28)
    result = run(data, width=4, height=1, format="png")
    assert result.warnings == ("alpha_ignored",) and result.channels == 3


@pytest.mark.parametrize(("descriptor", "channels"), [(0x20, 3), (0x21, 4)])
def test_16_bits_have_alpha_only_if_the_header_states_it(descriptor, channels):
    data = tga(struct.pack("<4H", 0x7C00, 0x83E0, 0x1F, 0), 16, descriptor=descriptor)
    result = run(data, width=4, height=1, format="png")
    assert result.channels == channels and result.warnings == ()
    assert lossless(data, width=4, height=1)[0, 0, :3].tolist() == [255, 0, 0]


@pytest.mark.parametrize(("attribute", "channels"), [(0, 3), (1, 3), (3, 4)])
def test_the_extension_states_what_alpha_means(attribute, channels):
    rows = bytes((1, 2, 3, 99)) * 4
    extension = struct.pack("<H", 495) + bytes(492) + bytes((attribute,))
    tail = extension + struct.pack("<II", 18 + len(rows), 0) + b"TRUEVISION-XFILE.\0"
    assert run(tga(rows, 32, descriptor=0x28, tail=tail), width=4, height=1, format="png").channels == channels


@pytest.mark.parametrize("compression", [None, "tga_rle"])
def test_a_cut_file_is_truncated(compression):
    data = encoded(Image.fromarray(RGBA), "TGA", compression=compression)
    assert failure(data[: len(data) // 2])[0] is ErrorCode.DECODE_TRUNCATED


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"\x87\x09", [[9] * 4, [9] * 4]),
        (b"\x85\x09\x01\x07\x06", [[9] * 4, [9, 9, 7, 6]]),
        (b"\x80\x09\x06\1\2\3\4\5\6\7", [[9, 1, 2, 3], [4, 5, 6, 7]]),
    ],
)
def test_runs_may_continue_in_the_next_row(body, expected):
    out = lossless(tga(body, 8, kind=11, size=(4, 2)), width=4, height=2, color="gray")
    assert out.tolist() == expected


@pytest.mark.parametrize(
    ("body", "code"), [(b"\x85\x09\x83\x07", ErrorCode.DECODE_CORRUPT), (b"\x85\x09\x01", ErrorCode.DECODE_TRUNCATED)]
)
def test_runs_that_do_not_fit_the_picture_are_refused(body, code):
    found, error = failure(tga(body, 8, kind=11, size=(4, 2)))
    assert found is code and error.facts.width == 4


@pytest.mark.parametrize("bits", [15, 16])
def test_errors_name_unsupported_bit_depths(bits):
    palette = struct.pack("<BBBHHBHHHHBB", 0, 1, 1, 0, 2, 24, 0, 0, 4, 1, 16, 0) + bytes(14)
    code, error = failure(palette if bits == 16 else tga(bytes(8), 15))
    assert code is ErrorCode.DECODE_UNSUPPORTED and f"{bits}-bit" in error.message and error.facts.width == 4


@pytest.mark.parametrize(
    "data",
    [
        bytes(5000),
        b"\0\0\2\0\1\0\x20\x20\0\0\1\0\x20\0" + bytes(99),  # a cursor
        b"\0\0\1\xba\x44\0\4\0\4\1\0\1\0\3\xf8\0\0\0" + bytes(99),  # a video
        b"\0\1\0\0\0\x0f\0\x80\0\3\0\x70OS/2" + bytes(99),  # a font
        tga(bytes(16), 32, descriptor=0xE0),
        tga(bytes(16), 32, size=(0, 1)),
        tga(bytes(16), 9),
        tga(bytes(16), 32, kind=4),
        b"\0\0\2",
    ],
)
def test_other_files_are_not_recognised(data):
    assert not TgaImage.matches(data)
