"""Limits on an image, and invalid answers."""

import pytest

from darkroom.tasks.imaging.limits import BASE_BYTES, BYTES_PER_PIXEL
from darkroom.tasks.worker.orders import Orders, read_answer
from darkroom.tasks.worker.shared_batch import Operation


def test_the_limits_of_an_image_depend_on_its_header():
    orders = Orders(max_pixels=10**9, max_image_seconds=60)
    assert [orders.seconds_for(pixels) for pixels in (0, 25_000_000, 250_000_000)] == [60, 60, 600]
    assert orders.memory_for(0, 0) == BASE_BYTES
    assert orders.memory_for(1_000_000, 0) == BASE_BYTES + 1_000_000 * BYTES_PER_PIXEL
    assert orders.model_copy(update={"memory": 1 << 20}).memory_for(1_000_000, 0) == 1 << 20


@pytest.mark.parametrize(
    ("operation", "answer"),
    [
        (Operation.TRANSFORM, b""),
        (Operation.TRANSFORM, b"?{}"),
        (Operation.TRANSFORM, b"+{}"),
        (Operation.TRANSFORM, b'-{"code": "decode.funny", "message": "", "facts": null}'),
        (Operation.INSPECT, b'+{"format": "jpeg"}'),
        (Operation.DESCRIBE, b"+1"),
        (Operation.THUMBNAIL, b"+[2, 1]"),
    ],
)
def test_an_invalid_answer_is_refused(operation, answer):
    with pytest.raises(ValueError):
        read_answer(operation, memoryview(b"abc"), memoryview(answer))
    assert read_answer(Operation.THUMBNAIL, memoryview(b"abc"), memoryview(b"+[1, 1]")).pixels == b"abc"
