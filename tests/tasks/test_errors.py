from darkroom.tasks.errors import MAX_MESSAGE_LENGTH, RETRIED_NEXT_RUN, TRANSIENT, ErrorCode, ImageError


def test_messages_are_cut():
    error = ImageError(ErrorCode.DECODE_CORRUPT, "x" * 1000)
    assert error.message == "x" * MAX_MESSAGE_LENGTH
    assert str(error) == error.message


def test_every_code_names_its_stage():
    assert {code.stage for code in ErrorCode} == {"source", "decode", "encode", "write"}
    assert all(code.value.startswith(f"{code.stage}.") for code in ErrorCode)


def test_errors_caused_by_an_images_bytes_are_never_retried():
    assert TRANSIENT < RETRIED_NEXT_RUN
    assert not {code for code in RETRIED_NEXT_RUN if code.stage in {"decode", "encode"}}
    assert ErrorCode.SOURCE_EMPTY not in RETRIED_NEXT_RUN


def test_codes_are_text_in_rows_and_queries():
    assert f"{ErrorCode.WRITE_NO_SPACE}" == "write.no_space"
