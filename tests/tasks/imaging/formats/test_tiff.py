import io
import struct
from contextlib import suppress

import cv2
import numpy as np
import pytest
from PIL import Image

from darkroom.tasks.errors import ErrorCode
from darkroom.tasks.imaging.formats.tiff import TiffImage
from tests.fuzz import build
from tests.tasks.imaging.reference import SIZE, encoded, failure, lossless, picture, pixels_of, rounded, run, stored


def test_deep_colors_are_rounded_not_truncated():
    samples = np.random.default_rng(1).integers(0, 65536, (80, 120, 3)).astype(np.uint16)
    data = cv2.imencode(".tiff", samples[:, :, ::-1])[1].tobytes()
    assert np.array_equal(lossless(data, **SIZE), rounded(samples))


def test_16_bit_gray_with_white_as_zero_is_inverted():
    samples = np.linspace(0, 65535, 80 * 120).astype(np.uint16).reshape(80, 120)
    data = encoded(samples, "TIFF", tiffinfo={262: 0})
    assert np.array_equal(lossless(data, **SIZE, color="gray"), 255 - rounded(samples))


@pytest.mark.parametrize(("links", "pages"), [([8, 8], 1), ([8, 100], 1), ([8, 14, 8], 2), ([8, 14, 0], 2), ([], 1)])
def test_pages_are_counted_by_the_chain_of_directories(links, pages):
    chain = b"".join(struct.pack("<I", link) + b"\0\0" for link in links)
    assert TiffImage(b"II*\0" + chain)._count_frames() == pages


def strips(data):
    """Return the start and end of each strip."""
    with Image.open(io.BytesIO(data)) as image:
        return [(start, start + size) for start, size in zip(image.tag_v2[273], image.tag_v2[279], strict=True)]


@pytest.mark.parametrize("compression", ["tiff_adobe_deflate", "jpeg"])
def test_damage_within_strips_is_detected(compression):
    data = encoded(picture(300, 200), "TIFF", compression=compression)
    assert run(data).warnings == ()
    missed_by_pillow = 0
    for start, end in strips(data):
        for place in range(start + (end - start) // 3, end - 100, (end - start) // 20):
            block = data[:place] + bytes(64) + data[place + 64 :]
            assert failure(block)[0] is ErrorCode.DECODE_CORRUPT
            with suppress(OSError), Image.open(io.BytesIO(block)) as image:
                image.load()
                missed_by_pillow += 1
    assert missed_by_pillow > 5, "Pillow alone detects the damage, so this test proves nothing"


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_cut_tiff_is_turned_once(orientation):
    upright = picture(300, 200)
    whole = encoded(stored(upright, orientation), "TIFF", compression="tiff_lzw")
    ranges = strips(whole)
    assert len(ranges) > 2
    body = whole[ranges[0][0] : ranges[-1][1]]
    offsets = [8 + start - ranges[0][0] for start, _ in ranges]
    with Image.open(io.BytesIO(whole)) as image:
        entries = [(tag, 4, [image.tag_v2[tag]]) for tag in (256, 257, 259, 262, 277, 278, 317) if tag in image.tag_v2]
    entries += [(258, 3, [8, 8, 8]), (273, 4, offsets), (274, 3, [orientation])]
    cut = build.tiff([[*entries, (279, 4, [end - start for start, end in ranges[:-1]] + [1_000_000])]], body[:-3000])
    result = run(cut, width=300, height=200, format="png", damage="tolerant")
    assert result.warnings == ("truncated",) and result.facts.orientation == orientation
    same = (pixels_of(result) == upright).all(axis=2)
    # The rows stored first are at the bottom when turned by 180°, and at the right when turned by 90°.
    assert same[-50:].all() if orientation == 3 else same[:, -50:].all()


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_orientation_is_read_from_xmp_alone(orientation):
    upright = picture(60, 40)
    pixels = np.asarray(stored(upright, orientation))
    packet = f'<x:xmpmeta tiff:Orientation="{orientation}"/>'.encode()
    result = run(build.tiff_picture(pixels, more=[(700, 1, packet)]), width=60, height=40, format="png")
    assert result.facts.orientation == orientation and np.array_equal(pixels_of(result), upright)


BITS = np.kron(np.random.default_rng(7).integers(0, 2, (40, 60)), np.ones((5, 6), np.uint8)).astype(bool)
"""A black and white page, (200, 360)."""


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
@pytest.mark.parametrize("damage", [b"\0" * 40, b"\xff" * 40, b"\x5a\xa5" * 20])
def test_damaged_faxes_are_refused(compression, damage):
    data = encoded(BITS, "TIFF", compression=compression)
    assert np.array_equal(lossless(data, width=360, height=200, color="gray"), np.where(BITS, 255, 0))
    (start, end), *_ = strips(data)
    place = start + (end - start) // 3
    code, error = failure(data[:place] + damage + data[place + len(damage) :])
    assert code is ErrorCode.DECODE_CORRUPT and error.facts.width == 360


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_faxes_that_end_early_are_refused(compression):
    data = encoded(BITS, "TIFF", compression=compression)
    (start, end), *_ = strips(data)
    position = data.index(struct.pack("<HHII", 279, 4, 1, end - start))
    short = data[: position + 8] + struct.pack("<I", (end - start) // 2) + data[position + 12 :]
    assert failure(short)[0] in {ErrorCode.DECODE_CORRUPT, ErrorCode.DECODE_TRUNCATED}


def test_a_fax_of_many_strips_is_read_in_either_bit_order():
    with Image.open(io.BytesIO(encoded(BITS, "TIFF", compression="group4", strip_size=450))) as image:
        parts = [image.fp.getvalue()[a : a + n] for a, n in zip(image.tag_v2[273], image.tag_v2[279], strict=True)]
        rows = image.tag_v2[278]
    assert len(parts) > 3
    for order in (1, 2):
        body = [bytes(int(f"{byte:08b}"[::-1], 2) for byte in part) if order == 2 else part for part in parts]
        offsets = [8 + sum(map(len, body[:i])) for i in range(len(body))]
        tags = {256: [360], 257: [200], 258: [1], 259: [4], 262: [0], 266: [order], 277: [1], 278: [rows]}
        tags |= {273: offsets, 279: [len(part) for part in body]}
        data = build.tiff([[(tag, 4, values) for tag, values in tags.items()]], b"".join(body))
        assert np.array_equal(lossless(data, width=360, height=200, color="gray"), np.where(BITS, 0, 255))


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ([(273, 4, [8] * 39)], ErrorCode.DECODE_CORRUPT, "lists 39 strips or tiles where its size needs 1"),
        ([(259, 3, [6])], ErrorCode.DECODE_UNSUPPORTED, "old-style JPEG"),
        ([(259, 3, [9999])], ErrorCode.DECODE_UNSUPPORTED, "number 9999"),
        ([(258, 3, [7, 7, 7])], ErrorCode.DECODE_UNSUPPORTED, "7-bit unsigned samples"),
        ([(273, 2, b"x")], ErrorCode.DECODE_CORRUPT, "damaged"),
    ],
)
def test_messages_name_what_is_wrong_with_the_file(changes, code, words):
    found, error = failure(build.tiff_picture(picture(), more=changes))
    assert found is code and words in error.message
