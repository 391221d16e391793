"""The codec process: work on the batches that a worker shares with it, until the worker closes the channel.

The kernel limits its time and memory for each image. An exception becomes the answer for its image; if an image ends
the process, the worker's side, `darkroom.tasks.worker.codec`, makes the answer.
"""

from __future__ import annotations

import math
import os
import resource
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from darkroom.tasks.errors import ErrorCode, as_image_error
from darkroom.tasks.imaging.records import Allow, Transformed, TransformError
from darkroom.tasks.imaging.sheet import draw_sheet, thumbnail
from darkroom.tasks.imaging.transform import describe_bytes, inspect_image, transform
from darkroom.tasks.worker.orders import FAILED, MADE, Failure, Orders
from darkroom.tasks.worker.shared_batch import Operation, SharedBatch


def serve(channel: socket.socket) -> None:
    """Work on one batch after the other; each message comes with the descriptor of a batch's memory."""
    limits = _Limits()
    batches: dict[int, SharedBatch] = {}
    while True:
        started = time.perf_counter()
        message, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
        waited = time.perf_counter() - started
        if not message:
            return
        memory = os.fstat(descriptors[0]).st_ino
        if memory in batches:
            os.close(descriptors[0])
        else:
            batches[memory] = SharedBatch(descriptors[0])
        batch = batches[memory]
        batch.refresh()
        batch.head.waited = waited
        _work(batch, limits)
        channel.sendall(message)


def _work(batch: SharedBatch, limits: _Limits) -> None:
    orders = Orders.model_validate_json(batch.orders)
    for image in range(batch.head.done, batch.head.images):
        _answer(batch, image, orders, limits)


def _answer(batch: SharedBatch, image: int, orders: Orders, limits: _Limits) -> None:
    """Carry out the operation for one image, and write its answer."""
    operation, source = batch.source(image)
    memory = 0

    def allow(pixels: int) -> None:
        nonlocal memory
        memory = orders.memory_for(pixels, len(source))
        seconds = orders.seconds_for(pixels)
        limits.allow(seconds, memory)
        batch.begin(image, seconds)

    allow(0)  # until the header is read
    try:
        output, made = _OPERATIONS[operation](source, orders, allow)
        batch.finish(image, output, MADE + made)
    except Exception as error:  # noqa: BLE001 - it becomes the answer
        limits.lift_memory()  # the answer needs memory
        problem = as_image_error(error, ErrorCode.DECODE_CORRUPT)
        message = problem.message
        if problem.code is ErrorCode.DECODE_MEMORY:
            message = f"decoding takes more than {memory >> 20:,} MB of memory"
        facts = problem.facts if isinstance(problem, TransformError) else None
        failure = Failure(code=problem.code, message=message, facts=facts)
        batch.finish(image, b"", FAILED + failure.model_dump_json().encode())
        problem.__traceback__ = None  # it refers to the picture, which stays in memory
        if problem.code is ErrorCode.DECODE_MEMORY:
            # Earlier images may have left too little memory: the worker retries the image in a new process.
            os._exit(1)


_TRANSFORMED = TypeAdapter(Transformed)
_json = TypeAdapter(Any).dump_json


def _transform(data: memoryview, orders: Orders, allow: Allow) -> tuple[bytes | memoryview, bytes]:
    made = transform(data, orders.recipe, orders.max_pixels, allow)
    return made.data, _TRANSFORMED.dump_json(made, exclude={"data"})


def _thumbnail(data: memoryview, orders: Orders, allow: Allow) -> tuple[bytes, bytes]:
    background = orders.recipe.background_rgb
    width, height, pixels = thumbnail(
        bytes(data), orders.side, background=background, max_pixels=orders.max_pixels, allow=allow
    )
    return pixels, _json((width, height))


_OPERATIONS: dict[Operation, Callable[[memoryview, Orders, Allow], tuple[bytes | memoryview, bytes]]] = {
    Operation.TRANSFORM: _transform,
    Operation.INSPECT: lambda data, _, allow: (b"", _json(inspect_image(bytes(data), allow))),
    Operation.DESCRIBE: lambda data, *_: (b"", _json(describe_bytes(bytes(data)))),
    Operation.THUMBNAIL: _thumbnail,
    Operation.SHEET: lambda data, *_: (draw_sheet(bytes(data)), b"null"),
}
"""Functions that return an image's output and the JSON of its answer, or raise an exception."""


class _Limits:
    """The kernel's limits on this process."""

    def __init__(self) -> None:
        self._held = _memory_held()

    def allow(self, seconds: float, memory: int) -> None:
        """Allow this many more seconds of processor time, and this many bytes beyond those held at the start."""
        _limit(resource.RLIMIT_CPU, math.ceil(time.process_time() + seconds))
        if sys.platform == "linux":
            _limit(resource.RLIMIT_DATA, self._held + memory)

    def lift_memory(self) -> None:
        """Remove the limit on memory."""
        _limit(resource.RLIMIT_DATA, resource.RLIM_INFINITY)


def _memory_held() -> int:
    """Return the bytes of this process that RLIMIT_DATA counts; 0 except on Linux, as only that counts all memory."""
    if sys.platform != "linux":
        return 0
    # RLIMIT_AS, the alternative, also counts libraries and reserved addresses.
    pages = int(Path("/proc/self/statm").read_text().split()[5])
    return pages * resource.getpagesize()


def _limit(kind: int, most: int) -> None:
    hard = resource.getrlimit(kind)[1]
    limits = [limit for limit in (most, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(kind, (min(limits, default=resource.RLIM_INFINITY), hard))
