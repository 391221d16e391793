import zlib

import cv2
import numpy as np
import pytest

from darkroom.tasks.errors import ErrorCode
from darkroom.tasks.imaging import SourceFacts
from darkroom.tasks.imaging.failures import describe, translate, translate_encoding
from tests.tasks.imaging.reference import failure, jpeg, picture


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


def test_opencv_running_out_of_memory_is_decode_memory():
    with pytest.raises(cv2.error) as caught:
        cv2.resize(np.zeros((1, 1), np.uint8), (2**31 - 1, 2**31 - 1))
    error = caught.value
    assert "/" not in describe(error)
    error.code = -4
    facts = SourceFacts("png", "RGB", 40, 30)
    assert translate_encoding(error, facts).code is ErrorCode.DECODE_MEMORY
    assert translate_encoding(ValueError("x"), facts).code is ErrorCode.ENCODE_FAILED


def test_running_out_of_memory_while_decoding_keeps_the_facts(monkeypatch):
    monkeypatch.setattr("simplejpeg.decode_jpeg", lambda *_, **__: (_ for _ in ()).throw(MemoryError()))
    code, error = failure(jpeg(picture(40, 30)))
    assert code is ErrorCode.DECODE_MEMORY and error.facts.width == 40


def test_a_failing_encoder_is_encode_failed(monkeypatch):
    monkeypatch.setattr("simplejpeg.encode_jpeg", lambda *_: (_ for _ in ()).throw(ValueError("no")))
    assert failure(jpeg(picture()))[0] is ErrorCode.ENCODE_FAILED
