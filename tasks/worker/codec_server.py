"""The codec server, which forks codec processes: `python -m darkroom.tasks.worker.codec_server DESCRIPTOR`.

It imports their modules once. The descriptor is a socket for requests, shared by the process that started the server
and those forked from it. A request is one byte and two sockets: the new codec process gets the channel; the server
keeps the lifeline, kills the process when anything arrives over it, its end included, and sends the exit code over it.
"""

from __future__ import annotations

import gc
import os
import resource
import select
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from darkroom.tasks.imaging.transform import configure_codecs
from darkroom.tasks.worker.codec_process import serve
from darkroom.tasks.worker.orphan import end_with_parent

MAX_BATCH_BYTES = 1 << 40
"""Upper limit on a batch's memory, so that an image that takes control can't make it too large to map."""


class Server:
    """Forks codec processes, kills them on request, and reports their exit codes."""

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        self._lifelines: dict[int, tuple[socket.socket, int]] = {}
        """Lifeline and process id by the lifeline's descriptor."""

        self._deaths, self._wakeup = socket.socketpair()
        self._deaths.setblocking(False)
        self._wakeup.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        self._poll = select.poll()
        self._poll.register(requests, select.POLLIN)
        self._poll.register(self._deaths, select.POLLIN)

    def run(self) -> None:
        """Serve requests until all processes that could send one have ended; then kill the codec processes."""
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor in self._lifelines:
                    self._poll.unregister(descriptor)
                    os.kill(self._lifelines[descriptor][1], signal.SIGKILL)
                elif descriptor == self._deaths.fileno():
                    with suppress(BlockingIOError):
                        self._deaths.recv(4096)
                elif not self._fork():
                    for _, process in self._lifelines.values():
                        os.kill(process, signal.SIGKILL)
                    return
            self._report_deaths()

    def _fork(self) -> bool:
        """Fork a codec process for the next request; return False if the socket for requests was closed."""
        request, descriptors, _, _ = socket.recv_fds(self._requests, 1, 2)
        if not request:
            return False
        channel, lifeline = (socket.socket(fileno=descriptor) for descriptor in descriptors)
        server = os.getpid()
        with channel:
            try:
                process = os.fork()
            except OSError:  # no memory; closing the lifeline reports it to the worker
                lifeline.close()
                return True
            if not process:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for ours in (self._requests, self._deaths, self._wakeup, lifeline):
                    ours.close()
                for other, _ in self._lifelines.values():
                    other.close()
                _be_codec_process(channel, server)
        self._lifelines[lifeline.fileno()] = lifeline, process
        self._poll.register(lifeline, select.POLLIN)
        return True

    def _report_deaths(self) -> None:
        for descriptor, (lifeline, process) in list(self._lifelines.items()):
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                with suppress(KeyError):  # `run` unregistered it when it killed the process
                    self._poll.unregister(descriptor)
                del self._lifelines[descriptor]
                with lifeline, suppress(OSError):  # its worker may have ended
                    lifeline.send(b"%d" % os.waitstatus_to_exitcode(status))


def _be_codec_process(channel: socket.socket, server: int) -> NoReturn:
    try:
        end_with_parent(signal.SIGKILL)
        with suppress(OSError):  # Linux: make the kernel kill codec processes first when it runs out of memory
            Path("/proc/self/oom_score_adj").write_text("1000")
        if os.getppid() == server:
            serve(channel)
        os._exit(0)
    finally:
        os._exit(2)


def main() -> None:
    """Run the codec server."""
    # A signal to all processes of a run must not be attributed to an image.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    most = MAX_BATCH_BYTES if most == resource.RLIM_INFINITY else min(most, MAX_BATCH_BYTES)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    configure_codecs()
    # Codecs may print without limit, and nothing reads stderr.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    gc.freeze()
    Server(socket.socket(fileno=int(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
