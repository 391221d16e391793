import re
import zlib

import cv2
import numpy as np
import pytest

from darkroom.tasks.errors import ErrorCode
from darkroom.tasks.imaging import SourceFacts, TransformError
from darkroom.tasks.imaging.failures import describe, translate, translate_encoding
from tests.fuzz.samples import samples
from tests.tasks.imaging.reference import failure, jpeg, picture, run


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
def test_exceptions_are_translated_to_error_codes(error, code):
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


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError("decoder error -2"), "the TIFF is damaged: its pixels make no sense"),
        (IndexError("index out of range"), "the TIFF is damaged: its pixels make no sense"),
        (SyntaxError("not identified by this driver"), "the TIFF is damaged: its header contradicts itself"),
        (OSError("image file is truncated (3 bytes not processed)"), "the TIFF ends before its picture does"),
        (SyntaxError("unknown pixel mode"), "this kind of TIFF is not read here"),
        (OSError("Unsupported BMP compression (9)"), "not read here (Unsupported BMP compression (9))"),
        (ValueError("Corrupt JPEG data: bad Huffman code"), "make no sense (Corrupt JPEG data: bad Huffman code)"),
        (MemoryError(), "not enough memory"),
    ],
)
def test_messages_name_what_is_wrong_with_the_file(error, message):
    assert message in translate(error, SourceFacts("tiff", "RGB", 40, 30)).message


def test_the_message_about_a_cut_file_names_no_other_cause():
    error = translate(SyntaxError("unknown pixel mode"), None, lambda: True)
    assert error.code is ErrorCode.DECODE_TRUNCATED and "ends before its picture does" in error.message
    assert "pixel mode" not in error.message


OPAQUE = re.compile(
    r"decoder error|out of range|driver|unpack_from|buffer|NoneType|stream|object|-\d|chunk b|\bof its \d"
)


@pytest.mark.parametrize("name", samples())
def test_messages_about_damaged_files_have_no_decoder_jargon(name):
    data, messages = samples()[name], []
    for number in range(40):
        start = 8 + number * (len(data) - 16) // 40
        for damage in (b"", bytes(30), b"\xff" * 30):
            damaged = data[:start] if damage == b"" else data[:start] + damage + data[start + len(damage) :]
            try:
                run(damaged)
            except TransformError as error:
                messages.append(error.message)
    assert messages
    assert not [message for message in messages if OPAQUE.search(message)]
