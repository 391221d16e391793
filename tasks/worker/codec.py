"""The worker's side of a codec process: hand it batches, take its answers, replace it when an image brings it down.

Only bytes and checked JSON come back from a codec process, and it gets no credentials: a decoder that an image has
taken over can't make the worker run anything.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from pydantic import TypeAdapter

from darkroom.tasks.errors import DarkroomError, ErrorCode, ImageError
from darkroom.tasks.imaging import Inspected, Tile, Transformed, TransformError
from darkroom.tasks.settings import Rules
from darkroom.tasks.worker.orders import EXIT_CODE, FAILED, MADE, Failure, Orders
from darkroom.tasks.worker.shared_batch import IMAGES, Operation, SharedBatch

PATIENCE = 3
"""By the clock, an image has so many times the processor time that it may take: the machine may have other work."""

START_SECONDS = 120.0
END_SECONDS = 30.0
TICK_SECONDS = 0.5

MAX_IDLE_DEATHS = 3
"""When so many processes in a row end without having begun an image, it isn't for the images."""

INHERITED = ("PATH", "HOME", "LANG", "LC_", "LD_", "DYLD_", "PYTHON", "TMPDIR")
"""What a codec process gets of the worker's environment, by how the names begin."""

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
    # glibc would give memory back after each image, only to ask for it again: a third of a small one's time.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}


Answer: TypeAlias = Transformed | Inspected | Tile | str | bytes | ImageError
"""What came of an image. The output of a `Transformed` lies in its batch, until that is released."""


@dataclass(slots=True)
class _Submitted:
    """A batch that a codec process has or is to get."""

    batch: SharedBatch
    orders: Orders
    taken: int = 0
    """Images of which the answers were taken."""

    killed_at: int | None = None
    """The image at which a fresh process was killed from outside."""

    @property
    def is_finished(self) -> bool:
        return self.taken == len(self.batch.operations)


@dataclass(frozen=True, slots=True)
class _Downfall:
    """Why a codec process is not to be used any more."""

    code: ErrorCode
    message: str
    from_outside: bool = False


class Codec:
    """A codec process, started when it is first needed and after each downfall, and the batches shared with it.

    Only a fresh process is believed: an image that brings down one that has served others before is tried again,
    because they may have broken it. So it is once more after a fresh process was killed from outside: a machine that
    runs out of memory kills whom it likes. A bad image costs three processes at most, and no other image anything.

    A codec belongs to one thread.
    """

    def __init__(self) -> None:
        self._process: _Process | None = None
        self._submitted: deque[_Submitted] = deque()
        self._free: list[SharedBatch] = []
        self._idle_deaths = 0
        self._still_since: tuple[SharedBatch, int] | None = None
        self._still_seconds = 0.0

    def start(self) -> _Process:
        """Return the process, started if there is none; does not wait until it is ready."""
        if self._process is None:
            self._process = _Process()
            for submitted in self._submitted:
                submitted.batch.rewind(submitted.taken)
                self._process.send(submitted.batch)
        return self._process

    def take_batch(self) -> SharedBatch:
        """Return free memory for a batch; memory that is not released is never used again."""
        return self._free.pop() if self._free else SharedBatch.create()

    def release(self, batch: SharedBatch) -> None:
        """Let the memory of a batch be used for another one."""
        batch.trim()
        self._free.append(batch)

    def submit(self, batch: SharedBatch, orders: Orders) -> None:
        """Hand a batch over. Batches are worked in this order."""
        process = self.start()
        self._submitted.append(_Submitted(batch, orders))
        process.send(batch)

    def collect(self) -> tuple[list[Answer], bool]:
        """Wait for the batch that was submitted first, for a tick at most.

        An image that brings down its process is answered by `decode.crash`, `decode.timeout` or `decode.memory`.

        Returns:
            What has come of the next of its images, and whether that is all of them.

        Raises:
            DarkroomError: no codec process can be started.
        """
        process, submitted = self.start(), self._submitted[0]
        started = time.monotonic()
        downfall = process.wait(submitted.orders)
        answers, nonsense = self._take_answers(process, submitted)
        if not submitted.is_finished:
            downfall = downfall or nonsense or self._overdue(submitted, time.monotonic() - started)
        if downfall:
            process.close()
            self._process = None
            answers += self._blame(process, submitted, downfall)
        if submitted.is_finished:
            self._submitted.popleft()
            self._still_since = None  # its memory is used again
        return answers, submitted.is_finished

    def close(self) -> None:
        """End the process, if there is one, and forget what was submitted."""
        if self._process:
            self._process.close()
            self._process = None
        self._submitted.clear()
        self._still_since, self._idle_deaths = None, 0

    def run(self, operation: Operation, orders: Orders, sources: Sequence[bytes]) -> Iterator[Answer]:
        """Yield what comes of a few images; each is copied, and its output valid until the next is asked for."""
        for first in range(0, len(sources), IMAGES):
            batch = self.take_batch()
            batch.reset(orders.model_dump_json().encode())
            for source in sources[first : first + IMAGES]:
                batch.place(len(source))[:] = source
                batch.add(operation, *batch.keep(len(source)))
            finished = False
            try:
                self.submit(batch, orders)
                while not finished:
                    answers, finished = self.collect()
                    yield from answers
            finally:
                if not finished:
                    self.close()  # or the next batch would get the answers of this one
            self.release(batch)

    def _take_answers(self, process: _Process, submitted: _Submitted) -> tuple[list[Answer], _Downfall | None]:
        """Return the answers that are there, and what speaks against the process if one of them does."""
        answers: list[Answer] = []
        while submitted.taken < min(submitted.batch.head.done, len(submitted.batch.operations)):
            try:
                answer = _read_answer(submitted.batch, submitted.taken)
            except Exception:  # noqa: BLE001 - an image may have taken the process over
                return answers, _Downfall(ErrorCode.DECODE_CRASH, "the codec process answered nonsense")
            if isinstance(answer, ImageError) and answer.code is ErrorCode.DECODE_MEMORY and process.answers:
                return answers, _Downfall(answer.code, answer.message)
            answers.append(answer)
            submitted.taken += 1
            process.answers += 1
            self._idle_deaths = 0
        return answers, None

    def _overdue(self, submitted: _Submitted, seconds: float) -> _Downfall | None:
        """Return the process's downfall if it has been at the same image for too long, these last seconds included."""
        batch, orders = submitted.batch, submitted.orders
        if self._still_since != (batch, batch.head.begun):
            self._still_since, self._still_seconds = (batch, batch.head.begun), 0.0
        # When all of this was stopped for an hour, the image has not had an hour.
        self._still_seconds += min(seconds, TICK_SECONDS)
        allowed = START_SECONDS
        if batch.head.begun > submitted.taken:
            least, most = orders.seconds_for(0), orders.seconds_for(orders.max_pixels)
            allowed = PATIENCE * max(least, min(most, batch.head.seconds))
        return _too_long(orders) if self._still_seconds >= allowed else None

    def _blame(self, process: _Process, submitted: _Submitted, downfall: _Downfall) -> list[Answer]:
        """Return the answer for the image that a process was at when it fell, if that image is to blame."""
        self._still_since = None
        if submitted.is_finished:
            return []
        if submitted.batch.head.begun <= submitted.taken:
            self._idle_deaths += 1
            if self._idle_deaths >= MAX_IDLE_DEATHS:
                self._idle_deaths = 0
                raise _no_process(end_server() or downfall.message)
            return []
        if downfall.code is not ErrorCode.DECODE_TIMEOUT:
            if process.answers:
                return []
            if downfall.from_outside and submitted.killed_at != submitted.taken:
                submitted.killed_at = submitted.taken
                return []
        submitted.taken += 1
        return [ImageError(downfall.code, downfall.message)]


_threads = threading.local()


def thread_codec() -> Codec:
    """Return this thread's codec, which lives as long as the thread does."""
    if not hasattr(_threads, "codec"):
        _threads.codec = Codec()
    codec: Codec = _threads.codec
    return codec


def longest_seconds(rules: Rules) -> float:
    """Return for how many seconds, by the clock, a worker may be at an image: three processes."""
    orders = Orders(max_pixels=rules.max_pixels, max_image_seconds=rules.max_image_seconds)
    return 3 * (START_SECONDS + PATIENCE * orders.seconds_for(rules.max_pixels) + END_SECONDS)


class _Server:
    """The process that codec processes are forked from; see `darkroom.tasks.worker.codec_server`."""

    current: ClassVar[_Server | None] = None
    lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self) -> None:
        self._requests, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(  # noqa: S603 - this project's module, by this interpreter
                    # -P: a folder named tasks where the user happens to be is not ours.
                    [sys.executable, "-P", "-m", "darkroom.tasks.worker.codec_server", str(theirs.fileno())],
                    env={name: value for name, value in os.environ.items() if name.startswith(INHERITED)} | ENVIRONMENT,
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                )
            except OSError as error:
                self._requests.close()
                raise _no_process(str(error)) from error
        self.pid = self._process.pid

    def fork(self, channel: socket.socket, lifeline: socket.socket) -> None:
        """Request a codec process; raises `OSError` if the server is gone."""
        socket.send_fds(self._requests, [b"f"], [channel.fileno(), lifeline.fileno()])

    def close(self) -> str:
        """End the server with all that it has forked, and return the last line that it said."""
        self._requests.close()
        self._process.kill()
        _, errors = self._process.communicate()
        return errors.decode(errors="replace").strip().rpartition("\n")[2]


def start_server() -> _Server:
    """Start the process that codec processes are forked from, unless there is one; does not wait until it is ready.

    Processes that are forked from this one share it.
    """
    with _Server.lock:
        _Server.current = _Server.current or _Server()
        return _Server.current


def end_server() -> str:
    """End that process with all that it has forked, if there is one; return the last line that it said."""
    with _Server.lock:
        server, _Server.current = _Server.current, None
    return server.close() if server else ""


class _Process:
    """A codec process, as its worker sees it."""

    def __init__(self) -> None:
        self.answers = 0
        """How many images it has answered for."""

        try:
            self._channel, channel = socket.socketpair()
            self._lifeline, lifeline = socket.socketpair()
        except OSError as error:
            raise _no_process(str(error)) from error
        with channel, lifeline:
            try:
                _fork(channel, lifeline)
            except DarkroomError:
                self._channel.close()
                self._lifeline.close()
                raise
        self._poll = select.poll()
        self._poll.register(self._channel, select.POLLIN)

    def send(self, batch: SharedBatch) -> None:
        """Tell it to work a batch."""
        with suppress(OSError):  # it has ended, which `wait` finds
            socket.send_fds(self._channel, [b"b"], [batch.descriptor])

    def wait(self, orders: Orders) -> _Downfall | None:
        """Wait until it has finished a batch, for a tick at most; return why it ended if it has."""
        if not self._poll.poll(TICK_SECONDS * 1000):
            return None
        try:
            # Any message only means "look": the head of the batch says what was done.
            message = self._channel.recv(1)
        except OSError:
            message = b""
        return None if message else self._why_it_ended(orders)

    def close(self) -> None:
        """Kill the process and wait for its end: it must not write to a batch that another one works."""
        with self._lifeline, self._channel, suppress(OSError):
            self._lifeline.shutdown(socket.SHUT_WR)
            self._exit_code()

    def _exit_code(self) -> int | None:
        """Return how the process has ended; None if its server is gone, or does not say."""
        self._lifeline.settimeout(END_SECONDS)
        message = b""
        with suppress(OSError):
            message = self._lifeline.recv(EXIT_CODE.size)
        return EXIT_CODE.unpack(message)[0] if len(message) == EXIT_CODE.size else None

    def _why_it_ended(self, orders: Orders) -> _Downfall:
        code = self._exit_code()
        if code is None or code == -signal.SIGKILL:
            message = "the codec process was killed, most likely for its memory"
            return _Downfall(ErrorCode.DECODE_MEMORY, message, from_outside=True)
        if code == -signal.SIGXCPU:
            return _too_long(orders)
        how = next((known.name for known in signal.Signals if known == -code), f"exit code {code}")
        return _Downfall(ErrorCode.DECODE_CRASH, f"the decoder crashed ({how})")


def _fork(channel: socket.socket, lifeline: socket.socket) -> None:
    """Have a codec process forked that serves a channel; by a new server if the one that was there is gone."""
    server = start_server()
    with suppress(OSError):
        server.fork(channel, lifeline)
        return
    if _Server.current is server:  # another thread may have replaced it
        end_server()
    try:
        start_server().fork(channel, lifeline)
    except OSError as error:
        raise _no_process(end_server() or str(error)) from error


def _too_long(orders: Orders) -> _Downfall:
    message = f"decoding did not end within max_image_seconds = {orders.max_image_seconds:g}"
    return _Downfall(ErrorCode.DECODE_TIMEOUT, message)


def _no_process(reason: str) -> DarkroomError:
    return DarkroomError(
        f"No codec process could be started: {reason}. On the workers' machines, see that there is room for one, and "
        "that 'python -m darkroom.tasks.worker.codec_server' finds all that it imports."
    )


def _read_answer(batch: SharedBatch, image: int) -> Answer:
    """Return what a codec process says of an image; raises `ValueError` if that is nothing it could say."""
    output, answer = batch.answer(image)
    kind, text = bytes(answer[:1]), bytes(answer[1:])
    if kind == FAILED:
        failure = Failure.model_validate_json(text)
        return TransformError(failure.code, failure.message, failure.facts)
    if kind != MADE:
        raise ValueError(f"an answer that begins with {kind!r}")
    match batch.operations[image]:
        case Operation.TRANSFORM:
            return _TRANSFORMED.validate_python({**json.loads(text), "data": output})
        case Operation.INSPECT:
            return _INSPECTED.validate_json(text)
        case Operation.DESCRIBE:
            return _TEXT.validate_json(text)
        case Operation.SHEET:
            return bytes(output)
    width, height = _SIZE.validate_json(text)
    if len(output) != 3 * width * height:
        raise ValueError(f"{len(output)} bytes for a picture of {width} × {height} pixels")
    return Tile(width=width, height=height, pixels=bytes(output))


_TRANSFORMED = TypeAdapter(Transformed)
_INSPECTED = TypeAdapter(Inspected)
_TEXT = TypeAdapter(str)
_SIZE = TypeAdapter(tuple[int, int])
