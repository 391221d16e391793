"""The child of the careful lane: the transform in a process that nobody misses. `tasks.isolate` is its worker's side.

What an image may take is decided by what its header promises, and enforced by the kernel.
"""

from __future__ import annotations

import math
import os
import resource
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, FiniteFloat

from tasks.errors import ErrorCode, as_image_error
from tasks.imaging import SourceFacts, configure_codecs, limits, probe, transform
from tasks.imaging.geometry import plan_geometry
from tasks.orphan import end_with_parent
from tasks.recipe import Recipe

PIXELS_PER_TURN = 25_000_000
"""An image has `max_image_seconds` for each so many pixels of itself or its output. The slowest that was measured,
WebP with transparency, enlarged, took 26 s of one core for so many."""

BASE_BYTES = 512 << 20
BYTES_PER_PIXEL = 2 * limits.BYTES_PER_PIXEL
BYTES_PER_BYTE = limits.BYTES_PER_SOURCE_BYTE
"""Memory that an image may take: some in any case, some for each pixel of itself or its output, and some for each byte
of its file. It is more than `tasks.imaging.limits` states, because the kernel also counts what is only reserved."""

HEAD = struct.Struct("!QQ")
"""Before each message: the lengths of its JSON and of the bytes that follow."""


class Orders(BaseModel):
    """What a child is told as it starts."""

    recipe: Recipe
    max_pixels: int
    seconds: float
    memory: int | None

    def seconds_for(self, pixels: int) -> float:
        """Return how much processor time an image of so many pixels may take."""
        return self.seconds * max(1.0, pixels / PIXELS_PER_TURN)

    def memory_for(self, pixels: int, file_bytes: int) -> int:
        """Return how many bytes of memory an image of so many pixels, in such a file, may take."""
        wanted = BASE_BYTES + BYTES_PER_PIXEL * pixels + BYTES_PER_BYTE * file_bytes
        return wanted if self.memory is None else min(wanted, self.memory)


class Failure(BaseModel):
    """An `ImageError`, on its way."""

    code: ErrorCode
    message: str
    facts: SourceFacts | None


class Answer(BaseModel):
    """What a child says of an image: what came of it, with the output; before that, how long it may take if long."""

    seconds: FiniteFloat | None = None
    failure: Failure | None = None
    made: dict[str, Any] | None = None


def send(channel: socket.socket, message: BaseModel | None, data: bytes = b"") -> None:
    """Send a message, with bytes behind it."""
    text = message.model_dump_json().encode() if message else b""
    head = HEAD.pack(len(text), len(data)) + text
    # In one piece as far as it goes: the other side should wake up once.
    sent = channel.sendmsg([head, data])
    channel.sendall(head[sent:])
    channel.sendall(memoryview(data)[max(sent - len(head), 0) :])


def receive(channel: socket.socket, length: int) -> bytes:
    """Return the next so many bytes; raises `EOFError` if the other side has gone."""
    data = bytearray(length)
    left = memoryview(data)
    while left:
        got = channel.recv_into(left)
        if not got:
            raise EOFError
        left = left[got:]
    return bytes(data)


def _serve(descriptor: int) -> None:
    """Be the child: transform what comes, until nobody is there to send any more."""
    _be_expendable()
    with socket.socket(fileno=descriptor) as channel, suppress(EOFError):
        text_bytes, _ = HEAD.unpack(receive(channel, HEAD.size))
        orders = Orders.model_validate_json(receive(channel, text_bytes))
        configure_codecs()
        held = _memory_held()
        send(channel, Answer())
        # What codecs print is not for anybody, and there is no end of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        while True:
            _work(channel, orders, held)


def _work(channel: socket.socket, orders: Orders, held: int) -> None:
    """Receive one image and answer for it."""
    _, data_bytes = HEAD.unpack(receive(channel, HEAD.size))
    _allow(orders.seconds, held + orders.memory_for(0, data_bytes))
    data = receive(channel, data_bytes)
    pixels = min(_promised_pixels(data, orders), orders.max_pixels)
    seconds, memory = orders.seconds_for(pixels), orders.memory_for(pixels, len(data))
    if seconds > orders.seconds:
        send(channel, Answer(seconds=seconds))
    _allow(seconds, held + memory)
    try:
        made = asdict(transform(data, orders.recipe, orders.max_pixels))
        output = made.pop("data")
        answer = Answer(made=made)
    except Exception as error:  # noqa: BLE001 - whatever it is, it costs one image only
        # There has to be memory enough to say so.
        _limit(resource.RLIMIT_DATA, resource.RLIM_INFINITY)
        answer, output = Answer(failure=_failure(error, memory)), b""
    send(channel, answer, output)


def _promised_pixels(data: bytes, orders: Orders) -> int:
    """Return how many pixels a header promises, or the output will have, whichever is more."""
    try:
        facts = probe(data, orders.max_pixels)
        geometry = plan_geometry(*facts.oriented_size, orders.recipe)
    except Exception:  # noqa: BLE001 - what is wrong with it is for the transform to say
        return 0
    return max(facts.width * facts.height, geometry.width * geometry.height)


def _failure(error: Exception, memory: int) -> Failure:
    problem = as_image_error(error, ErrorCode.DECODE_CORRUPT)
    message = problem.message
    if problem.code is ErrorCode.DECODE_MEMORY:
        message = f"decoding takes more than {memory >> 20:,} MB of memory"
    return Failure(code=problem.code, message=message, facts=problem.facts)


def _be_expendable() -> None:
    """Die with the worker and of nothing that is meant for it, leave no core, and be what the kernel kills first."""
    # A signal to all of a run's processes must not look like an image's doing.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    _limit(resource.RLIMIT_CORE, 0)
    end_with_parent(signal.SIGKILL)
    if sys.platform == "linux":
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")


def _memory_held() -> int:
    """Return how many bytes of memory count for RLIMIT_DATA by now; only Linux enforces it for all of them."""
    if sys.platform != "linux":
        return 0
    # RLIMIT_AS would count libraries too, and addresses that are only reserved.
    pages = int(Path("/proc/self/statm").read_text().split()[5])
    return pages * resource.getpagesize()


def _allow(seconds: float, memory: int) -> None:
    """Let this process take so many more seconds of processor time, and so many bytes of memory in all."""
    _limit(resource.RLIMIT_CPU, math.ceil(time.process_time() + seconds))
    if sys.platform == "linux":
        _limit(resource.RLIMIT_DATA, memory)


def _limit(kind: int, most: int) -> None:
    hard = resource.getrlimit(kind)[1]
    limits = [limit for limit in (most, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(kind, (min(limits, default=resource.RLIM_INFINITY), hard))


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
