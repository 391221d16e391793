import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import PpmImagePlugin

from darkroom.tasks.errors import ErrorCode
from darkroom.tasks.imaging.formats.netpbm import NetpbmReader
from tests.tasks.imaging.reference import SIZE, failure, lossless, rounded, run


@pytest.mark.parametrize("white", [1023, 65535])
def test_a_deep_pgm_is_scaled_by_its_maxval(white):
    samples = np.linspace(0, white, 80 * 120).astype(">u2").reshape(80, 120)
    data = f"P5 120 80 {white}\n".encode() + samples.tobytes()
    out = lossless(data, **SIZE, color="gray")
    assert np.abs(out.astype(int) - rounded(samples, white).astype(int)).max() <= 1
    assert out.min() == 0 and out.max() == 255


def decoded_by_pillow(data):
    with PpmImagePlugin.PpmImageFile(io.BytesIO(data)) as image:
        return np.array(image)


netpbm = st.tuples(st.sampled_from(["P1", "P2", "P3", "P5", "P6"]), st.integers(1, 9), st.integers(1, 9))


@settings(max_examples=150)
@given(netpbm, st.integers(1, 65535) | st.sampled_from([1, 254, 255, 256, 65535]), st.randoms())
def test_samples_equal_those_of_pillow(kind, white, random):
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
        assert np.array_equal(np.array(image), decoded_by_pillow(data))


@pytest.mark.parametrize("body", [b"1 2 x", b"1 2 -3", b"1 2 256", b"1 2 1.5"])
def test_invalid_samples_are_corrupt(body):
    assert failure(b"P2 3 1 255\n" + body)[0] is ErrorCode.DECODE_CORRUPT


def test_bytes_after_the_last_sample_are_ignored():
    assert run(b"P2 2 1 255\n1 2\nand so on").warnings == ()
