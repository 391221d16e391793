"""Real files on which other tools failed; skipped without the shared corpus."""

from pathlib import Path

import pytest

from darkroom.tasks.errors import ImageError
from tests.tasks.imaging.reference import lossless, mean_difference, run

CORPUS = Path(__file__).resolve().parents[4] / "shared" / "corpus"

pytestmark = pytest.mark.skipif(not CORPUS.is_dir(), reason="the shared corpus is not beside this checkout")

FINE = """
    16bit-rgb.png 1bit.tif arithmetic.jpg avif-orientation-6.avif big-height.webp cmyk.jpg cogs.gif
    exif-dpi-zerodivision.jpg exif_imagemagick_orientation.png hopper_16bit.pgm icc_profile_big.jpg indexed.png
    invalid_multiframe.gif looks-like-svg.webp orientation-6.webp orientation_rectangle.jpg palette_wedge.png
    rgba.png sample-xyb.jpg tiff_16bit_RGB.tiff ultra-hdr.jpg uncompressed_la.png
"""
OUTCOMES = {
    **dict.fromkeys(FINE.split(), ""),
    **{f"exif-landscape-{orientation}.jpg": "" for orientation in range(1, 9)},
    "12bit.jpg": "decode.unsupported",
    "bomb-17000x17000.avif": "decode.too_many_pixels",
    "broken.png": "decode.corrupt",
    "broken_data_stream.png": "decode.corrupt",
    "crash-338516dbd2f0e83caddb8ce256c22db3bd6dc40f.tif": "decode.truncated",
    "decompression_bomb.gif": "decode.too_many_pixels",
    "decompression_bomb.ico": "decode.too_many_pixels",
    "icc-after-SOF.jpg": "header_repaired icc_invalid",
    "invalid-exif.jpg": "exif_invalid",
    "oom-225817ca0f8c663be7ab4b9e717b02c661e66834.tif": "decode.truncated",
    "photoshop-200dpi-broken.jpg": "header_repaired",
    "truncated-2.jpg": "decode.truncated",
    "truncated_image.png": "decode.truncated",
    "truncated_jpeg.jpg": "eoi_missing",
}
"""The expected error code, or the expected warnings, of each file."""


def read(name):
    path = CORPUS / "odd" / name
    if not path.is_file():
        pytest.skip(f"{name} is not in this corpus")
    return path.read_bytes()


def outcome(data, **recipe):
    try:
        return " ".join(run(data, max_pixels=200_000_000, **recipe).warnings)
    except ImageError as error:
        return error.code.value


@pytest.mark.parametrize("name", OUTCOMES)
def test_odd_files_have_the_expected_error_or_warnings(name):
    assert outcome(read(name)) == OUTCOMES[name]


@pytest.mark.parametrize("name", ["truncated-2.jpg", "truncated_image.png"])
def test_tolerant_decoding_keeps_truncated_files(name):
    assert "truncated" in outcome(read(name), damage="tolerant")


@pytest.mark.parametrize("orientation", range(2, 9))
def test_every_orientation_gives_the_same_upright_landscape(orientation):
    recipe = {"width": 150, "height": 100}
    upright = lossless(read("exif-landscape-1.jpg"), **recipe)
    turned = lossless(read(f"exif-landscape-{orientation}.jpg"), **recipe)
    # They are not identical: each has its orientation's number painted in the middle.
    assert mean_difference(turned, upright) < 4


def test_an_xyb_jpeg_looks_like_its_png():
    recipe = {"width": 145, "height": 221}
    assert mean_difference(lossless(read("sample-xyb.jpg"), **recipe), lossless(read("indexed.png"), **recipe)) < 12


@pytest.mark.parametrize("folder", ["imagenet", "camera"])
def test_real_pictures_have_no_errors_or_warnings(folder):
    paths = sorted((CORPUS / folder).iterdir())[:60]
    assert {path.name: outcome(path.read_bytes(), width=100, height=100) for path in paths} == dict.fromkeys(
        (path.name for path in paths), ""
    )
