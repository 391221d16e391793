"""Any bytes give an output or a `TransformError`; libraries raise no warnings."""

import io
import struct
import warnings

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from darkroom.tasks.errors import ErrorCode, ImageError
from darkroom.tasks.imaging import TransformError
from darkroom.tasks.imaging.transform import configure_codecs, describe_bytes, inspect_image
from tests.fuzz import build
from tests.fuzz.samples import samples
from tests.tasks.imaging.reference import encoded, facts_of, failure, jpeg, lossless, picture, pixels_of, run

NAMES = "jpeg/420 jpeg/restarts png/rgb gif/plain bmp/rgb ppm/p6 tiff/strips tiff/tiff_lzw webp/lossy avif/420 ico/png"
SAMPLES = {name: samples()[name] for name in (*NAMES.split(), "jpeg/444 progressive", "jpeg2000/rgb")}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_file_cut_anywhere_is_truncated(name):
    data = SAMPLES[name]
    start = 400 if name.startswith("jpeg/") else 40
    whole = lossless(data, width=16, height=16)
    for end in range(start, len(data) - 40, max(len(data) // 25, 1)):
        assert failure(data[:end], width=16, height=16)[0] is ErrorCode.DECODE_TRUNCATED, end
        try:
            kept = run(data[:end], width=16, height=16, format="png", damage="tolerant")
        except ImageError as error:
            assert error.code is ErrorCode.DECODE_TRUNCATED
        else:
            assert "truncated" in kept.warnings and pixels_of(kept).shape[:2] == whole.shape[:2]


@pytest.mark.parametrize("name", ["jpeg/420", "png/rgb", "gif/plain", "bmp/rgb", "ppm/p6", "tiff/gray"])
def test_tolerant_decoding_keeps_the_upper_part_of_a_cut_file(name):
    data = samples()[name]
    recipe = {"width": 61, "height": 43, "filter": "nearest", "color": "gray"}
    cut = data[: int(len(data) * 0.8)]
    kept, whole = lossless(cut, **recipe, damage="tolerant"), lossless(data, **recipe)
    same = (kept == whole).all(axis=1) if name != "bmp/rgb" else (kept == whole).all(axis=1)[::-1]
    assert same[:8].all() and not same.all()


def test_configured_codecs_give_the_same_bytes():
    data = SAMPLES["avif/420"]
    before, threads = run(data).data, cv2.getNumThreads()
    try:
        configure_codecs()
        assert cv2.getNumThreads() == 1
        assert run(data).data == before
    finally:
        cv2.setNumThreads(threads)


def test_configured_codecs_raise_no_warning():
    text = build.tiff_picture(picture(4, 2), more=[(315, 7, bytes(60_000))])
    position = text.index(struct.pack("<HHI", 315, 7, 60_000))
    data = text[: position + 4] + struct.pack("<I", 70_000) + text[position + 8 :]  # longer than the file
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.warns(UserWarning), Image.open(io.BytesIO(data)) as image:
            image.load()
        configure_codecs()
        assert run(data, width=4, height=2).facts.width == 4


def test_contain_pads_with_the_opaque_background():
    pixels = np.dstack((picture(), np.full((80, 120), 90, np.uint8)))
    out = lossless(encoded(pixels, "PNG"), width=120, height=120, fit="contain", background="#0a141e")
    assert out[0, 0].tolist() == [10, 20, 30, 255] and out[-1, -1].tolist() == [10, 20, 30, 255]
    assert np.array_equal(out[20:100], pixels)
    gray = lossless(jpeg(picture()), width=120, height=120, fit="contain", background="#0a141e", color="gray")
    assert gray[0, 0] == round(0.299 * 10 + 0.587 * 20 + 0.114 * 30)


@pytest.mark.parametrize("name", samples())
def test_inspection_agrees_with_facts_and_pixels(name):
    facts, found = facts_of(samples()[name]), inspect_image(samples()[name])
    assert (found.format, {found.width, found.height}) == (facts.format, {facts.width, facts.height})
    assert found.channels == lossless(samples()[name], width=9, height=9)[0, 0].size or found.channels == 1


def test_a_damaged_image_is_not_inspected():
    with pytest.raises(TransformError) as caught:
        inspect_image(samples()["jpeg/420"][:-300])
    assert caught.value.code is ErrorCode.DECODE_TRUNCATED and caught.value.facts.width == 61
    assert describe_bytes(samples()["jpeg/420"][:-300]) == "jpeg, 61 × 43 pixels"


@pytest.mark.parametrize(
    ("data", "description"),
    [
        (b"", "no image"),
        (b"\xff\xd8\xff\xe0", "jpeg with a broken header"),
        (b"GIF89a\x05\x00\x06\x00\x00\x00\x00", "gif, 5 × 6 pixels"),
        (b"\x89PNG\r\n\x1a\n", "png"),
        (b"RIFF\x00\x00\x00\x00WEBPVP9 ", "webp"),
        (b"\x00\x00\x00\x20ftypavif", "avif"),
        (b"\x00\x00\x01\x00\x01\x00", "ico"),
        (b"P6 ", "ppm"),
    ],
)
def test_bytes_are_described_by_their_header(data, description):
    assert describe_bytes(data) == description


STARTS = [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF0000WEBP", b"GIF89a", b"0000ftypavif"]


@given(st.sampled_from(STARTS), st.binary())
def test_any_bytes_can_be_described(start, rest):
    assert describe_bytes(start + rest)
