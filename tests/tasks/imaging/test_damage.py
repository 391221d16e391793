"""Damage that decoders pass over, and headers that ask for more than they should: each was found by fuzzing."""

import io
import struct
import zlib
from contextlib import suppress

import cv2
import numpy as np
import pyarrow as pa
import pytest
from darkroom.tasks.imaging.avif import avif_size
from darkroom.tasks.imaging.facts import unlimited
from darkroom.tasks.imaging.general import open_image
from darkroom.tasks.imaging.netpbm import NetpbmReader
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PpmImagePlugin

from darkroom.tasks.dataset.manifest import SCHEMA
from darkroom.tasks.errors import ErrorCode, ImageError
from darkroom.tasks.imaging import bands
from darkroom.tasks.imaging.resample import resize
from tests.fuzz import build
from tests.fuzz.samples import other_profile, samples
from tests.tasks.imaging.reference import (
    encoded,
    exif_with,
    facts_of,
    failure,
    jpeg,
    lossless,
    picture,
    pixels_of,
    run,
    stored,
)

PICTURE = picture(64, 48)
SIZE = {"width": 64, "height": 48}
PALETTE = Image.fromarray(PICTURE).quantize(8)


def damaged(data, position):
    return data[:position] + bytes((data[position] ^ 0x10,)) + data[position + 1 :]


@pytest.mark.parametrize(("width", "height"), [(1, (1 << 32) - 1), ((1 << 32) - 1, 1), (1 << 31, 1 << 31)])
def test_sizes_that_no_row_can_hold_are_refused_without_facts(width, height):
    code, error = failure(build.png_header(width, height))
    assert code is ErrorCode.DECODE_TOO_MANY_PIXELS and error.facts is None and str(width) in error.message


def test_sides_may_be_as_long_as_pixels_are_allowed():
    side = 1_500_000
    strip = build.png(side, 1, bytes(side + 1), color_type=0)
    assert run(strip, width=8, height=8).facts.width == side
    assert failure(strip, max_pixels=side - 1)[0] is ErrorCode.DECODE_TOO_MANY_PIXELS


@pytest.mark.parametrize("name", ["png/animated", "webp/animated", "avif/animated", "gif/animated"])
def test_frames_are_counted_without_their_decoder_and_fit_a_row(name):
    data = samples()[name]
    assert facts_of(data).frames == 2
    if name == "png/animated":
        position = data.index(b"acTL")
        control = struct.pack(">II", 1 << 31, 0)
        data = data[: position - 4] + build.png_chunk(b"acTL", control) + data[position + 16 :]
        frames = run(data).facts.frames
        assert frames == 100_000
        pa.array([frames], SCHEMA.field("frames").type)


def test_a_png_whose_first_frame_is_not_in_the_animation_has_one_more():
    data = encoded(
        Image.fromarray(PICTURE), "PNG", save_all=True, append_images=[PALETTE.convert("RGB")], default_image=True
    )
    with Image.open(io.BytesIO(data)) as image:
        assert facts_of(data).frames == image.n_frames == 2


def test_the_limit_is_the_users_and_not_pillows():
    # Pillow's own is 179 million pixels.
    size = (14_000 - 1).to_bytes(3, "little")
    canvas = build.webp(build.riff(b"VP8X", b"\2\0\0\0" + size + size), build.riff(b"ANIM", bytes(6)))
    assert failure(canvas, max_pixels=200_000_000)[0] is ErrorCode.DECODE_CORRUPT
    assert failure(canvas, max_pixels=190_000_000)[0] is ErrorCode.DECODE_TOO_MANY_PIXELS


def test_what_a_reader_may_allocate_to_look_at_a_header_is_the_users_limit_too():
    # Where a GIF's first frame is to be disposed of, its reader makes room for another.
    side = 9000
    disposed = b"\x21\xf9\4\x08\0\0\0\0" + build.gif_frame(side, side, b"\x84\x8f\xa9\x5d\x05")
    data = build.gif_header(side, side) + disposed + b";"
    asked = []
    assert open_image("gif", data, side * side, asked.append).facts.width == side
    assert asked == [side * side]
    with pytest.raises(ImageError, match="over the limit"):
        open_image("gif", data, side * side - 1, unlimited)


# PNG


@pytest.mark.parametrize("kind", [b"IHDR", b"PLTE", b"tRNS", b"iCCP", b"eXIf", b"tEXt", b"IDAT", b"IEND"])
@pytest.mark.parametrize("keep", ["fail", "keep"])
def test_every_checksum_of_a_png_counts(kind, keep):
    whole = encoded(PALETTE, "PNG", transparency=3, icc_profile=other_profile(), exif=exif_with(6))
    text = build.png_chunk(b"tEXt", b"Title\0hello")
    data = whole[:33] + text + whole[33:]
    assert run(data).warnings == ()
    code, error = failure(damaged(data, data.index(kind) + (4 if kind == b"IEND" else 5)), truncated=keep)
    assert code is ErrorCode.DECODE_CORRUPT and kind.decode() in error.message


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_a_png_whose_end_is_zeros_is_refused(part):
    data = encoded(PICTURE, "PNG")
    start = int(len(data) * part)
    assert failure(data[:start] + bytes(len(data) - start))[0] is ErrorCode.DECODE_CORRUPT
    # Cut as well, there is no checksum left: what zeros make of the rest are no pixels.
    code, _ = failure(data[:start] + bytes(len(data) - start - 20))
    assert code is ErrorCode.DECODE_TRUNCATED


def test_texts_and_animation_of_a_png_are_not_for_its_decoder(monkeypatch):
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
    assert lossless(encoded(PICTURE, "PNG", icc_profile=padded), **SIZE).tolist() == (
        lossless(encoded(PICTURE, "PNG", icc_profile=profile), **SIZE).tolist()
    )


@pytest.mark.parametrize("color_type", [2, 4, 6])
def test_deep_pngs_are_exact_over_many_bands_and_interlaced(color_type, monkeypatch):
    channels = {2: 3, 4: 2, 6: 4}[color_type]
    samples_ = np.random.default_rng(3).integers(0, 65536, (48, 64, channels)).astype(np.uint16)
    data = build.png(64, 48, build.png_rows(samples_), bits=16, color_type=color_type)
    expected = np.floor(samples_ * (255 / 65535) + 0.5).astype(np.uint8)
    if channels == 2:
        expected = expected[:, :, [0, 0, 0, 1]]
    assert np.array_equal(lossless(data, **SIZE), expected)
    monkeypatch.setattr(bands, "BAND_PIXELS", 100)
    assert np.array_equal(lossless(data, **SIZE), expected)


# TIFF


def strips(data):
    """Where the strips of a TIFF are."""
    with Image.open(io.BytesIO(data)) as image:
        return [(start, start + size) for start, size in zip(image.tag_v2[273], image.tag_v2[279], strict=True)]


@pytest.mark.parametrize("compression", ["tiff_adobe_deflate", "jpeg"])
def test_damage_within_the_strips_of_a_tiff_is_noticed(compression):
    data = encoded(picture(300, 200), "TIFF", compression=compression)
    assert run(data).warnings == ()
    passed_over = 0
    for start, end in strips(data):
        for place in range(start + (end - start) // 3, end - 100, (end - start) // 20):
            block = data[:place] + bytes(64) + data[place + 64 :]
            assert failure(block)[0] is ErrorCode.DECODE_CORRUPT
            with suppress(OSError), Image.open(io.BytesIO(block)) as image:
                image.load()
                passed_over += 1
    assert passed_over > 5, "Pillow alone would do"


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
    result = run(cut, width=300, height=200, format="png", truncated="keep")
    assert result.warnings == ("truncated",) and result.facts.orientation == orientation
    same = (pixels_of(result) == upright).all(axis=2)
    # What the file begins with is the bottom when turned by 180°, and the right when turned by 90°.
    assert same[-50:].all() if orientation == 3 else same[:, -50:].all()


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_tiff_that_is_turned_only_by_its_xmp(orientation):
    upright = picture(60, 40)
    pixels = np.asarray(stored(upright, orientation))
    packet = f'<x:xmpmeta tiff:Orientation="{orientation}"/>'.encode()
    result = run(build.tiff_picture(pixels, more=[(700, 1, packet)]), width=60, height=40, format="png")
    assert result.facts.orientation == orientation and np.array_equal(pixels_of(result), upright)


# JPEG


def test_parts_of_a_profile_beyond_the_last_possible_one():
    data = jpeg(PICTURE)
    parts = b"".join(build.jpeg_segment(0xE2, b"ICC_PROFILE\0" + bytes((i % 256, 255)) + bytes(9)) for i in range(256))
    assert "icc_invalid" in run(data[:2] + parts + data[2:]).warnings


def test_an_invalid_marker_among_the_pixels_is_damage():
    data = jpeg(picture(300, 200))
    middle = len(data) * 2 // 3
    code, _ = failure(data[:middle] + b"\xff\x02" + data[middle + 2 :])
    assert code is ErrorCode.DECODE_CORRUPT


# AVIF


@pytest.mark.parametrize("size", [(16, 16), (61, 43), (300, 7), (1000, 600)])
@pytest.mark.parametrize("animated", [False, True])
def test_the_size_of_an_avif_is_read_from_its_container(size, animated):
    image = Image.fromarray(picture(*size))
    more = {"save_all": True, "append_images": [image]} if animated else {}
    data = encoded(image, "AVIF", speed=10, **more)
    assert avif_size(data) == size


@pytest.mark.parametrize("depth", [8, 10, 12])
def test_deep_avifs_have_a_size_too(depth):
    data = cv2.imencode(
        ".avif", np.zeros((40, 50, 3), np.uint8 if depth == 8 else np.uint16), [cv2.IMWRITE_AVIF_DEPTH, depth]
    )
    assert avif_size(data[1].tobytes()) == (50, 40)


def test_exif_of_an_avif_is_never_opened(monkeypatch):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a maker"
    data = encoded(Image.fromarray(PICTURE), "AVIF", speed=10, exif=exif)
    assert data.count(b"MM\0*") == 1
    monkeypatch.delattr(Image.Exif, "load")
    assert facts_of(data).orientation == 6 and run(data).warnings == ()


# Netpbm


def pillows(data):
    with PpmImagePlugin.PpmImageFile(io.BytesIO(data)) as image:
        return np.array(image)


netpbm = st.tuples(st.sampled_from(["P1", "P2", "P3", "P5", "P6"]), st.integers(1, 9), st.integers(1, 9))


@settings(max_examples=150)
@given(netpbm, st.integers(1, 65535) | st.sampled_from([1, 254, 255, 256, 65535]), st.randoms())
def test_netpbm_samples_are_pillows(kind, white, random):
    magic, width, height = kind
    count = width * height * (3 if magic in {"P3", "P6"} else 1)
    white = 1 if magic == "P1" else white
    values = [random.randint(0, white) for _ in range(count)]
    head = f"{magic}\n# a comment\n{width} {height}\n" + ("" if magic == "P1" else f"{white}\n")
    if magic in {"P5", "P6"}:
        body = np.array(values, ">u2" if white > 255 else "u1").tobytes()
    else:
        gaps = random.choices([" ", "\n", "  ", " # comment\n", "\t"], k=count)
        body = "".join(f"{value}{gap}" for value, gap in zip(values, gaps, strict=True)).encode()
    data = head.encode() + body + b"\n"
    with NetpbmReader(io.BytesIO(data)) as image:
        assert np.array_equal(np.array(image), pillows(data))


@pytest.mark.parametrize("body", [b"1 2 x", b"1 2 -3", b"1 2 256", b"1 2 1.5"])
def test_what_is_no_sample(body):
    assert failure(b"P2 3 1 255\n" + body)[0] is ErrorCode.DECODE_CORRUPT


def test_what_follows_the_last_sample_is_ignored():
    assert run(b"P2 2 1 255\n1 2\nand so on").warnings == ()


# Bands, and long strips


@pytest.mark.parametrize(
    "name", ["png/rgba", "png/palette alpha", "jpeg/cmyk", "png/profile", "tiff/deep rgb", "gif/transparent"]
)
def test_working_in_bands_changes_nothing(name, monkeypatch):
    recipes = [
        {"width": 90, "height": 70, "filter": "lanczos", "format": "png"},
        {"width": 31, "height": 70, "fit": "cover", "format": "png"},
        {"width": 31, "height": 20, "background": "#123456"},
        {"width": 61, "height": 43, "format": "webp", "color": "gray"},
    ]
    whole = [run(samples()[name], **recipe).data for recipe in recipes]
    for pixels in (1, 150, 1000):
        monkeypatch.setattr(bands, "BAND_PIXELS", pixels)
        assert [run(samples()[name], **recipe).data for recipe in recipes] == whole


@pytest.mark.parametrize("length", [32_768, 65_537, 1_000_000])
@pytest.mark.parametrize("method", ["area", "nearest", "lanczos"])
def test_long_strips_are_resampled_like_short_ones(length, method):
    # Sixteen steps: every output pixel but those at an edge has one colour to come from.
    levels = np.repeat(np.arange(16, dtype=np.uint8) * 16, -(-length // 16))[:length]
    strip = np.repeat(levels[None, :, None], 3, axis=2)
    expected = np.repeat(np.arange(16) * 16, 16)
    for pixels, size in ((strip, (256, 1)), (strip.transpose(1, 0, 2).copy(), (1, 256))):
        out = resize(pixels, *size, method).reshape(256, 3)[:, 0].astype(int)
        inner = np.arange(256) % 16
        assert (np.abs(out - expected)[(inner > 3) & (inner < 12)] <= 1).all()
