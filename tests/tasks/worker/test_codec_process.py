"""The answers of a codec process, and its limits."""

import dataclasses

import pytest

from darkroom.tasks.errors import ErrorCode, ImageError
from darkroom.tasks.imaging import Inspected
from darkroom.tasks.imaging.limits import BASE_BYTES, BYTES_PER_PIXEL
from darkroom.tasks.imaging.transform import transform
from darkroom.tasks.settings import Recipe
from darkroom.tasks.worker.orders import Orders
from darkroom.tasks.worker.shared_batch import Operation
from tests.poisoned import logged, poison
from tests.tasks.imaging.reference import encoded, picture
from tests.tasks.worker.codec_runs import GOOD, MB, QUICK, SMALL, failure, pid_of_process, transformed


@pytest.mark.parametrize("image_format", ["jpeg", "webp"])
def test_answers_equal_those_of_transform(codec, image_format):
    recipe = Recipe(width=40, height=40, fit="contain", format=image_format)
    orders = QUICK.model_copy(update={"recipe": recipe})
    images = [encoded(picture(), name) for name in ("JPEG", "PNG", "WEBP", "TIFF", "GIF")]
    broken = [b"", b"<html>", GOOD[:600], GOOD[:-400], encoded(picture(2000, 1000), "PNG")]
    made = transformed(codec, *images, orders=orders)
    assert [untimed(each) for each in made] == [untimed(transform(data, recipe, 1_000_000)) for data in images]
    process = pid_of_process()
    for data in broken:
        with pytest.raises(ImageError) as caught:
            transform(data, recipe, QUICK.max_pixels)
        found = failure(codec, data, orders)
        assert (found.code, found.message) == (caught.value.code, caught.value.message)
        assert found.facts == caught.value.facts
    assert pid_of_process() == process, "a bad image does not end the process"


def test_operations_other_than_transform(codec):
    [inspected, cut] = codec.run(Operation.INSPECT, QUICK, [GOOD, GOOD[:-300]])
    assert inspected == Inspected("jpeg", 120, 80, 3)
    assert cut.code is ErrorCode.DECODE_TRUNCATED
    assert list(codec.run(Operation.DESCRIBE, QUICK, [GOOD, b"?"])) == ["jpeg, 120 × 80 pixels", "no image"]
    orders = QUICK.model_copy(update={"side": 30})
    [shown] = codec.run(Operation.THUMBNAIL, orders, [GOOD])
    assert (shown.width, shown.height, len(shown.pixels)) == (30, 20, 1800)


def test_the_kernel_limits_memory_to_what_the_header_implies(codec, log):
    orders = Orders(recipe=SMALL, max_pixels=10**9, max_image_seconds=60)
    bomb = poison("eat")
    allowed = (BASE_BYTES + 40 * 30 * BYTES_PER_PIXEL + 4 * len(bomb)) // MB
    assert failure(codec, bomb, orders).message == f"decoding takes more than {allowed} MB of memory"
    [ate] = {int(what.split()[1]) for what, _ in logged(log) if what.startswith("ate")}
    assert 0.8 * allowed <= ate <= allowed


def untimed(made):
    return dataclasses.replace(made, data=bytes(made.data), decode_ms=0, resize_ms=0, encode_ms=0)
