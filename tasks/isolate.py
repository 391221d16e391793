"""The careful lane: the same transform in a child process, with a deadline and a memory limit.

Only bytes and checked JSON come back from a child, and it gets no credentials: a decoder that an image has taken over
can't make the worker run anything.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from typing import Self

from pydantic import TypeAdapter

from tasks.child import HEAD, Answer, Orders, receive, send
from tasks.errors import DarkroomError, ErrorCode, ImageError
from tasks.imaging import Transformed
from tasks.recipe import Recipe, Rules

PATIENCE = 3
"""By the clock, an image has so many times the processor time that it may take: the machine may have other work."""

START_SECONDS = 120.0
END_SECONDS = 30.0
TICK_SECONDS = 0.5
MAX_TEXT_BYTES = 1 << 20
INHERITED = ("PATH", "HOME", "LANG", "LC_", "LD_", "DYLD_", "PYTHON", "TMPDIR")
"""What a child gets of the worker's environment, by how the names begin."""

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
    # glibc would give memory back after each image, only to ask for it again: a third of a small one's time.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}


def longest_seconds(rules: Rules) -> float:
    """Return for how many seconds, by the clock, the careful lane may be at an image: three children."""
    orders = Orders(recipe=Recipe(), max_pixels=rules.max_pixels, seconds=rules.max_image_seconds, memory=None)
    image = PATIENCE * (orders.seconds + orders.seconds_for(rules.max_pixels))
    return 3 * (START_SECONDS + image + END_SECONDS)


class Isolated:
    """Transforms images in a child process, which is started when it is first needed and after each downfall.

    Only a fresh child is believed: an image that brings down one that has served others before is tried again,
    because they may have broken it. So it is once more after a fresh child was killed from outside: a machine that
    runs out of memory kills whom it likes. A bad image costs three children at most.

    Args:
        recipe: what happens to the pixels.
        rules: of which `max_pixels` and `max_image_seconds` are heeded.
        memory: bytes that a child may take for any image, however large that is.
    """

    def __init__(self, recipe: Recipe, rules: Rules, memory: int | None = None) -> None:
        self._orders = Orders(
            recipe=recipe, max_pixels=rules.max_pixels, seconds=rules.max_image_seconds, memory=memory
        )
        self._child: _Child | None = None

    def __call__(self, data: bytes) -> Transformed:
        """Do what `tasks.imaging.transform` does.

        Raises:
            ImageError: what that raises; `decode.crash`, `decode.timeout` or `decode.memory` for an image that
                brings a child down.
            DarkroomError: no child can be started.
        """
        killed = False
        while True:
            fresh = self._child is None
            child = self._child or self._start()
            try:
                return child.transform(data)
            except ImageError as error:
                if error.code not in _DOWNFALLS:
                    raise
                self.close()
                if error.code is ErrorCode.DECODE_TIMEOUT or (fresh and (killed or not isinstance(error, _Killed))):
                    raise
                killed = fresh
            except BaseException:
                self.close()
                raise

    def _start(self) -> _Child:
        self._child = _Child(self._orders)
        self._child.greet()
        return self._child

    def close(self) -> None:
        """End the child, if there is one."""
        if self._child:
            self._child.close()
            self._child = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_DOWNFALLS = frozenset({ErrorCode.DECODE_CRASH, ErrorCode.DECODE_TIMEOUT, ErrorCode.DECODE_MEMORY})
_TRANSFORMED = TypeAdapter(Transformed)


class _Killed(ImageError):  # noqa: N818 - an end, and not always the image's fault
    """A child was killed by somebody else; most likely by the kernel, which needed memory."""

    def __init__(self) -> None:
        super().__init__(ErrorCode.DECODE_MEMORY, "the decoder's process was killed, most likely for its memory")


class _Child:
    """A child, as its worker sees it."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        try:
            self._socket, self._process = _spawn()
        except OSError as error:
            raise _no_child(str(error)) from error
        self._socket.settimeout(START_SECONDS)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def greet(self) -> None:
        """Tell the child what to do, and wait until it is ready; raises `DarkroomError` if it never is."""
        try:
            send(self._socket, self._orders)
            self._receive(START_SECONDS)
        except (OSError, EOFError, ValueError) as error:
            raise _no_child(self._last_words() or "it ended without a word") from error

    def transform(self, data: bytes) -> Transformed:
        """Have one image transformed; raises `ImageError`."""
        orders = self._orders
        try:
            send(self._socket, None, data)
            answer, output = self._receive(PATIENCE * orders.seconds)
            if answer.seconds:
                longest = orders.seconds_for(orders.max_pixels)
                answer, output = self._receive(PATIENCE * min(answer.seconds, longest))
            if answer.failure is None:
                return _TRANSFORMED.validate_python({**(answer.made or {}), "data": output})
        except TimeoutError:
            raise self._too_long() from None
        except (OSError, EOFError):
            raise self._verdict() from None
        except ValueError:
            raise ImageError(ErrorCode.DECODE_CRASH, "the decoder's process talks nonsense") from None
        raise ImageError(answer.failure.code, answer.failure.message, answer.failure.facts)

    def close(self) -> None:
        """Kill the child, if it lives, and wait for its end."""
        self._process.kill()
        with self._process, self._socket:
            self._process.wait()

    def _receive(self, seconds: float) -> tuple[Answer, bytes]:
        """Return the next message.

        Raises:
            TimeoutError: the child has not begun to speak within so many seconds.
            OSError, EOFError: it has gone.
            ValueError: it says what it never should.
        """
        awake = 0.0
        while not self._poll.poll(TICK_SECONDS * 1000):
            # Counted in ticks: when all of this was stopped for an hour, the image has not had an hour.
            awake += TICK_SECONDS
            if awake >= seconds:
                raise TimeoutError
        text_bytes, data_bytes = HEAD.unpack(receive(self._socket, HEAD.size))
        # No format takes more than so many bytes a pixel.
        if text_bytes > MAX_TEXT_BYTES or data_bytes > 8 * self._orders.max_pixels + MAX_TEXT_BYTES:
            raise ValueError
        answer = Answer.model_validate_json(receive(self._socket, text_bytes))
        return answer, receive(self._socket, data_bytes)

    def _too_long(self) -> ImageError:
        message = f"decoding did not end within max_image_seconds = {self._orders.seconds:g}"
        return ImageError(ErrorCode.DECODE_TIMEOUT, message)

    def _verdict(self) -> ImageError:
        """Return what became of a child that has gone."""
        try:
            code = self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            return ImageError(ErrorCode.DECODE_CRASH, "the decoder's process does not answer")
        if code == -signal.SIGXCPU:
            return self._too_long()
        if code == -signal.SIGKILL:
            return _Killed()
        how = next((known.name for known in signal.Signals if known == -code), f"exit code {code}")
        return ImageError(ErrorCode.DECODE_CRASH, f"the decoder crashed ({how})")

    def _last_words(self) -> str:
        self._process.kill()
        _, errors = self._process.communicate()
        return errors.decode(errors="replace").strip().rpartition("\n")[2]


def _spawn() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start a process, and return the socket that leads to it."""
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            return ours, subprocess.Popen(  # noqa: S603 - this project's module, by this interpreter
                # -P: a folder named tasks where the user happens to be is not ours.
                [sys.executable, "-P", "-m", "tasks.child", str(theirs.fileno())],
                env={name: value for name, value in os.environ.items() if name.startswith(INHERITED)} | ENVIRONMENT,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
        except OSError:
            ours.close()
            raise


def _no_child(reason: str) -> DarkroomError:
    return DarkroomError(
        f"No process for the careful lane could be started: {reason}. On the workers' machines, see that there is room "
        "for one, and that 'python -m tasks.child' finds all that it imports."
    )
