"""Transform images in a codec process, and directly for comparison."""

import dataclasses

import psutil

from darkroom.tasks.errors import ImageError
from darkroom.tasks.imaging import Transformed
from darkroom.tasks.imaging.transform import transform
from darkroom.tasks.settings import Recipe
from darkroom.tasks.worker.orders import Orders
from darkroom.tasks.worker.shared_batch import Operation
from tests.tasks.imaging.reference import jpeg, picture

SMALL = Recipe(width=16, height=12)
MB = 1 << 20
QUICK = Orders(recipe=SMALL, max_pixels=1_000_000, max_image_seconds=1, memory=200 * MB)
GOOD = jpeg(picture())


def transformed(codec, *images, orders=QUICK):
    """Return the answers for images, with copies of their outputs."""
    return [
        dataclasses.replace(answer, data=bytes(answer.data)) if isinstance(answer, Transformed) else answer
        for answer in codec.run(Operation.TRANSFORM, orders, images)
    ]


def failure(codec, data, orders=QUICK):
    [error] = transformed(codec, data, orders=orders)
    assert isinstance(error, ImageError)
    return error


def assert_outputs(codec, *images):
    assert [answer.data for answer in transformed(codec, *images)] == [expected(data) for data in images]


def expected(data=GOOD, recipe=SMALL):
    return transform(data, recipe, 10**9).data


def codec_server():
    """Return the only codec server of this process."""
    children = psutil.Process().children()
    [server] = [child for child in children if "darkroom.tasks.worker.codec_server" in child.cmdline()]
    return server


def pid_of_process():
    """Return the process id of the only codec process."""
    [process] = [child for child in codec_server().children() if child.status() != psutil.STATUS_ZOMBIE]
    return process.pid
