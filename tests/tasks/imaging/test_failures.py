"""Whatever the bytes are: an output, or an `ImageError` of the closed list, and never a sound."""

import io
import re
import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
from darkroom.tasks.imaging.codecs import configure_codecs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from darkroom.tasks.errors import MAX_MESSAGE_LENGTH, ErrorCode, ImageError
from darkroom.tasks.imaging.failures import describe, translate, translate_encoding
from darkroom.tasks.imaging.transform import transform
from darkroom.tasks.settings import Recipe
from tests.tasks.imaging.reference import LIMIT, encoded, facts_of, failure, jpeg, lossless, picture, pixels_of, run

PICTURE = picture(40, 30)
SAMPLES = {
    "jpeg": jpeg(PICTURE),
    "progressive": jpeg(PICTURE, progressive=True),
    "png": encoded(PICTURE, "PNG"),
    "palette": encoded(PICTURE[:, :, 0], "GIF", interlace=0),
    "bmp": encoded(PICTURE, "BMP"),
    "ppm": encoded(PICTURE, "PPM"),
    "tiff": encoded(PICTURE, "TIFF"),
    "tiff_lzw": encoded(PICTURE, "TIFF", compression="tiff_lzw"),
    "webp": encoded(PICTURE, "WEBP"),
    "avif": encoded(PICTURE, "AVIF"),
    "ico": encoded(PICTURE, "ICO", sizes=[(24, 24)]),
    "jpeg2000": encoded(PICTURE, "JPEG2000"),
}
DECODE_CODES = {code for code in ErrorCode if code.stage in {"decode", "encode"}}


@pytest.mark.parametrize(
    "data", [b"<html><body>Not found</body></html>", bytes(5000), b"hello", b"\xff\xd8", b"%PDF-1.7"]
)
def test_what_is_no_image(data):
    code, error = failure(data)
    assert code is ErrorCode.DECODE_UNKNOWN_FORMAT and error.facts is None


def test_empty():
    assert failure(b"")[0] is ErrorCode.SOURCE_EMPTY


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "heif"),
        (b"8BPS\0\x01" + bytes(40), "psd"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "eps"),
        (b"<?xml version='1.0'?><svg xmlns='x'/>", "svg"),
        (b"\xff\x0a" + bytes(20), "jpegxl"),
    ],
)
def test_formats_that_are_known_but_not_read(data, name):
    code, error = failure(data)
    assert code is ErrorCode.DECODE_UNSUPPORTED and name in error.message


def png_header(width, height):
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def ico_of(inner):
    return b"\0\0\1\0\1\0" + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inner), 22) + inner


def webp_canvas(width, height):
    body = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + (width - 1).to_bytes(3, "little")
    body += (height - 1).to_bytes(3, "little") + b"ANIM" + struct.pack("<I", 6) + bytes(6)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def tiff_header(width, height, *more):
    values = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    entries = [(tag, kind, 1, value) for tag, kind, value in [*values, (279, 4, width * height)]]
    body = b"".join(struct.pack("<HHII", *entry) for entry in [*entries, *more])
    return b"II*\0" + struct.pack("<IH", 8, len(entries) + len(more)) + body + bytes(4)


BOMBS = {
    "png": png_header(20_000, 20_000),
    "ico": ico_of(png_header(20_000, 20_000)),
    "webp": webp_canvas(16_000, 16_000),
    "tiff": tiff_header(20_000, 20_000),
    "gif": b"GIF89a" + struct.pack("<HH", 20_000, 20_000) + bytes(3) + b"\x2c" + bytes(9) + b"\x02\0\x3b",
    "bmp": b"BM" + bytes(12) + struct.pack("<IiiHHIIIIII", 40, 20_000, 20_000, 1, 24, 0, 0, 0, 0, 0, 0),
    "ppm": b"P6 20000 20000 255\n",
    "avif": SAMPLES["avif"].replace(
        b"ispe" + struct.pack(">III", 0, 40, 30), b"ispe" + struct.pack(">III", 0, 20_000, 20_000)
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_too_many_pixels_are_refused_from_the_header(name):
    code, error = failure(BOMBS[name])
    assert code is ErrorCode.DECODE_TOO_MANY_PIXELS
    assert error.facts.format == name and error.facts.width * error.facts.height > LIMIT


@pytest.mark.parametrize("name", SAMPLES)
def test_the_limit_is_exact_for_every_format(name):
    facts = facts_of(SAMPLES[name])
    pixels = facts.width * facts.height
    recipe = {"width": 8, "height": 8}
    assert run(SAMPLES[name], max_pixels=pixels, **recipe).facts == facts
    code, error = failure(SAMPLES[name], max_pixels=pixels - 1, **recipe)
    assert code is ErrorCode.DECODE_TOO_MANY_PIXELS and (error.facts.width, error.facts.height) == (
        facts.width,
        facts.height,
    )


@pytest.mark.parametrize("image_format", ["jpeg", "webp", "png"])
def test_outputs_that_would_be_enormous_are_refused(image_format):
    code, error = failure(encoded(picture(1, 3000), "PNG"), fit="outside", format=image_format)
    assert code is ErrorCode.ENCODE_FAILED and "1800000" in error.message and error.facts.height == 3000


def test_a_box_of_more_pixels_than_the_limit_is_refused():
    code, _ = failure(SAMPLES["png"], max_pixels=2000)
    assert code is ErrorCode.ENCODE_FAILED


@pytest.mark.parametrize("name", SAMPLES)
def test_every_cut_is_truncated(name):
    data = SAMPLES[name]
    start = 400 if name in {"jpeg", "progressive"} else 40
    whole = lossless(data, width=16, height=16)
    for end in range(start, len(data) - 40, max(len(data) // 25, 1)):
        assert failure(data[:end], width=16, height=16)[0] is ErrorCode.DECODE_TRUNCATED, end
        try:
            kept = run(data[:end], width=16, height=16, format="png", truncated="keep")
        except ImageError as error:
            assert error.code is ErrorCode.DECODE_TRUNCATED
        else:
            assert "truncated" in kept.warnings and pixels_of(kept).shape[:2] == whole.shape[:2]


@pytest.mark.parametrize("name", ["jpeg", "png", "palette", "bmp", "ppm", "tiff"])
def test_the_upper_part_is_kept(name):
    data = SAMPLES[name]
    recipe = {"width": 40, "height": 30, "filter": "nearest", "color": "gray"}
    cut = data[: int(len(data) * 0.8)]
    kept, whole = lossless(cut, **recipe, truncated="keep"), lossless(data, **recipe)
    same = (kept == whole).all(axis=1) if name != "bmp" else (kept == whole).all(axis=1)[::-1]
    assert same[:8].all() and not same.all()


RECIPES = [
    Recipe(width=20, height=10),
    Recipe(width=50, height=60, fit="cover", filter="lanczos", format="png", truncated="keep"),
    Recipe(width=9, height=60, fit="contain", format="webp", color="gray", truncated="keep"),
]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(sorted(SAMPLES)),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 7)), max_size=6),
    st.floats(0, 1) | st.just(1.0),
    st.sampled_from(RECIPES),
)
def test_damage_gives_an_output_or_a_code(name, flips, kept, recipe):
    data = bytearray(SAMPLES[name])
    for position, bit in flips:
        data[int(position * (len(data) - 1))] ^= 1 << bit
    damaged = bytes(data[: max(int(kept * len(data)), 1)])
    try:
        result = transform(damaged, recipe, 1_000_000)
    except ImageError as error:
        assert error.code in DECODE_CODES
        assert 0 < len(error.message) <= MAX_MESSAGE_LENGTH
        assert not re.search(r"(^|\s|')/\w", error.message), "a path"
    else:
        assert pixels_of(result).shape[:2] == (result.height, result.width)
        assert transform(damaged, recipe, 1_000_000).data == result.data


@given(st.sampled_from(sorted(SAMPLES)), st.binary(max_size=200))
@settings(max_examples=150, deadline=None)
def test_any_bytes_behind_a_signature(name, rest):
    try:
        run(SAMPLES[name][:16] + rest)
    except ImageError as error:
        assert error.code in DECODE_CODES


def test_configured_codecs_give_the_same_bytes():
    data = SAMPLES["avif"]
    before, threads = run(data).data, cv2.getNumThreads()
    try:
        configure_codecs()
        assert cv2.getNumThreads() == 1
        assert run(data).data == before
    finally:
        cv2.setNumThreads(threads)


def test_warnings_of_pillow_stay_inside():
    # A tag whose text is longer than the whole file.
    data = tiff_header(4, 2, (315, 2, 60_000, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.warns(UserWarning), Image.open(io.BytesIO(data)) as image:
            image.load()
        configure_codecs()
        assert run(data, width=4, height=2).facts.width == 4


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), ErrorCode.DECODE_MEMORY),
        (EOFError("x"), ErrorCode.DECODE_TRUNCATED),
        (OSError("decoder jp2k not available"), ErrorCode.DECODE_CORRUPT),
        (ValueError("unknown pixel mode"), ErrorCode.DECODE_UNSUPPORTED),
        (ZeroDivisionError("x"), ErrorCode.DECODE_CORRUPT),
        (zlib.error("x"), ErrorCode.DECODE_CORRUPT),
    ],
)
def test_codes_of_exceptions(error, code):
    assert translate(error, None).code is code


def test_opencv_without_memory_is_memory():
    with pytest.raises(cv2.error) as caught:
        cv2.resize(np.zeros((1, 1), np.uint8), (2**31 - 1, 2**31 - 1))
    error = caught.value
    assert "/" not in describe(error)
    error.code = -4
    facts = facts_of(SAMPLES["png"])
    assert translate_encoding(error, facts).code is ErrorCode.DECODE_MEMORY
    assert translate_encoding(ValueError("x"), facts).code is ErrorCode.ENCODE_FAILED


def test_memory_runs_out_while_decoding(monkeypatch):
    monkeypatch.setattr("simplejpeg.decode_jpeg", lambda *_, **__: (_ for _ in ()).throw(MemoryError()))
    code, error = failure(SAMPLES["jpeg"])
    assert code is ErrorCode.DECODE_MEMORY and error.facts.width == 40


def test_an_encoder_that_fails(monkeypatch):
    monkeypatch.setattr("simplejpeg.encode_jpeg", lambda *_: (_ for _ in ()).throw(ValueError("no")))
    assert failure(SAMPLES["jpeg"])[0] is ErrorCode.ENCODE_FAILED
