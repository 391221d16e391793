"""A worker's handles on a codec process, and on the codec server, which forks codec processes."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

from darkroom.tasks.errors import DarkroomError, ErrorCode
from darkroom.tasks.worker.orders import Orders
from darkroom.tasks.worker.shared_batch import SharedBatch

END_SECONDS = 30.0
TICK_SECONDS = 0.5

INHERITED = ("PATH", "HOME", "LANG", "LC_", "LD_", "DYLD_", "PYTHON", "TMPDIR")
"""Prefixes of the environment variables that codec processes inherit; no such variable holds credentials."""

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
    # By default glibc returns memory to the kernel after each image, which costs a third of a small image's time.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a codec process must be replaced."""

    code: ErrorCode
    message: str
    from_outside: bool = False
    """Whether something else than the image may have ended it, such as a machine that ran out of memory."""


class ServerHandle:
    """A codec server (`darkroom.tasks.worker.codec_server`), shared by this process and those forked from it."""

    current: ClassVar[ServerHandle | None] = None
    lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self) -> None:
        self._requests, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(  # noqa: S603 - this project's module, by this interpreter
                    # -P keeps the current folder off sys.path, where a user's modules may have the same names.
                    [sys.executable, "-P", "-m", "darkroom.tasks.worker.codec_server", str(theirs.fileno())],
                    env={name: value for name, value in os.environ.items() if name.startswith(INHERITED)} | ENVIRONMENT,
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                )
            except OSError as error:
                self._requests.close()
                raise no_process(str(error)) from error
        self.pid = self._process.pid

    def fork(self, channel: socket.socket, lifeline: socket.socket) -> None:
        """Request a codec process with these sockets; raise `OSError` if the server has ended."""
        socket.send_fds(self._requests, [b"f"], [channel.fileno(), lifeline.fileno()])

    def close(self) -> str:
        """Kill the server, which ends its codec processes; return the last line of its stderr."""
        self._requests.close()
        self._process.kill()
        _, errors = self._process.communicate()
        return errors.decode(errors="replace").strip().rpartition("\n")[2]


def start_server() -> ServerHandle:
    """Return the codec server, and start it if there is none; do not wait until it is ready."""
    with ServerHandle.lock:
        ServerHandle.current = ServerHandle.current or ServerHandle()
        return ServerHandle.current


def end_server() -> str:
    """End the codec server, if there is one, and its codec processes; return the last line of its stderr."""
    with ServerHandle.lock:
        server, ServerHandle.current = ServerHandle.current, None
    return server.close() if server else ""


class ProcessHandle:
    """A new codec process; raises `DarkroomError` if it cannot be started."""

    def __init__(self) -> None:
        try:
            self._channel, channel = socket.socketpair()
            self._lifeline, lifeline = socket.socketpair()
        except OSError as error:
            raise no_process(str(error)) from error
        with channel, lifeline:
            try:
                fork(channel, lifeline)
            except DarkroomError:
                self._channel.close()
                self._lifeline.close()
                raise
        self._poll = select.poll()
        self._poll.register(self._channel, select.POLLIN)

    def send(self, batch: SharedBatch) -> None:
        """Send a batch."""
        with suppress(OSError):  # the process has ended, which `wait` returns
            socket.send_fds(self._channel, [b"b"], [batch.descriptor])

    def wait(self, orders: Orders) -> Fault | None:
        """Wait up to `TICK_SECONDS` for a message; return a fault if the process has ended, else None."""
        if not self._poll.poll(TICK_SECONDS * 1000):
            return None
        try:
            # A message only wakes the worker: progress is in the batch's head.
            message = self._channel.recv(1)
        except OSError:
            message = b""
        return None if message else self._why_it_ended(orders)

    def close(self) -> None:
        """Kill the process and wait for its end, so that it cannot write to a batch that its successor gets."""
        with self._lifeline, self._channel, suppress(OSError):
            self._lifeline.shutdown(socket.SHUT_WR)
            self._exit_code()

    def _exit_code(self) -> int | None:
        """Return the exit code as `subprocess.Popen.returncode` does; None if the server has ended or hangs."""
        self._lifeline.settimeout(END_SECONDS)
        with suppress(OSError, ValueError):
            return int(self._lifeline.recv(16))
        return None

    def _why_it_ended(self, orders: Orders) -> Fault:
        code = self._exit_code()
        if code is None or code == -signal.SIGKILL:
            message = "the codec process was killed, most likely for its memory"
            return Fault(ErrorCode.DECODE_MEMORY, message, from_outside=True)
        if code == -signal.SIGXCPU:
            return too_long(orders)
        how = next((known.name for known in signal.Signals if known == -code), f"exit code {code}")
        return Fault(ErrorCode.DECODE_CRASH, f"the decoder crashed ({how})")


def fork(channel: socket.socket, lifeline: socket.socket) -> None:
    """Request a codec process with these sockets, from a new server if the current one has ended."""
    server = start_server()
    with suppress(OSError):
        server.fork(channel, lifeline)
        return
    if ServerHandle.current is server:  # another thread may have replaced it
        end_server()
    try:
        start_server().fork(channel, lifeline)
    except OSError as error:
        raise no_process(end_server() or str(error)) from error


def too_long(orders: Orders) -> Fault:
    """Return the fault of a process that has exceeded the time limit for an image."""
    message = f"decoding did not end in the time that `max_image_seconds={orders.max_image_seconds:g}` allows"
    return Fault(ErrorCode.DECODE_TIMEOUT, message)


def no_process(reason: str) -> DarkroomError:
    """Return the error for a codec process that cannot be started."""
    return DarkroomError(
        f"No codec process could be started: {reason}. On the workers' machines, check that there is memory for it, and"
        " that 'python -m darkroom.tasks.worker.codec_server' can import its modules."
    )
