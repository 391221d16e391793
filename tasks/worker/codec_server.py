"""The process that codec processes are forked from: `python -m tasks.worker.codec_server DESCRIPTOR`.

It imports what they need once, and has a thread and a socket to those who want one: a worker and all that was forked
from the same process. A request is one byte, with a channel and a lifeline, both sockets. The channel goes to a codec
process that is forked for it. Whatever comes over the lifeline, its end included, gets that process killed; how
the process ended goes back over it.
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

from tasks.imaging.codecs import configure_codecs
from tasks.orphan import end_with_parent
from tasks.worker.codec_process import serve
from tasks.worker.orders import EXIT_CODE


def main() -> None:
    """Serve the requests that come from a descriptor, until nobody is left who could send any."""
    # A signal to all of a run's processes must not look like an image's doing.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    configure_codecs()
    # What codecs print is not for anybody, and there is no end of it.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    gc.freeze()
    _Server(socket.socket(fileno=int(sys.argv[1]))).run()


class _Server:
    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        self._lifelines: dict[int, tuple[socket.socket, int]] = {}
        """By descriptor: a lifeline, and the process that it is of."""

        self._deaths, wakeup = socket.socketpair()
        for end in (self._deaths, wakeup):
            end.setblocking(False)
        signal.set_wakeup_fd(wakeup.detach(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._poll = select.poll()
        for source in (self._requests, self._deaths):
            self._poll.register(source, select.POLLIN)

    def run(self) -> None:
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor == self._requests.fileno():
                    if not self._fork():
                        self._kill_all()
                        return
                elif descriptor == self._deaths.fileno():
                    with suppress(BlockingIOError):
                        self._deaths.recv(4096)
                elif descriptor in self._lifelines:
                    self._poll.unregister(descriptor)
                    os.kill(self._lifelines[descriptor][1], signal.SIGKILL)
            self._report_deaths()

    def _fork(self) -> bool:
        """Fork a codec process for the next request; return whether there was one."""
        request, descriptors, _, _ = socket.recv_fds(self._requests, 1, 2)
        if not request:
            return False
        channel, lifeline = (socket.socket(fileno=descriptor) for descriptor in descriptors)
        server = os.getpid()
        with channel:
            process = os.fork()
            if not process:
                lifeline.close()
                self._leave()
                _be_codec_process(channel, server)
        self._lifelines[lifeline.fileno()] = lifeline, process
        self._poll.register(lifeline, select.POLLIN)
        return True

    def _leave(self) -> None:
        """Close in a forked process what is the server's."""
        os.close(signal.set_wakeup_fd(-1))
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for lifeline, _ in self._lifelines.values():
            lifeline.close()
        for own in (self._requests, self._deaths):
            own.close()

    def _kill_all(self) -> None:
        for _, process in self._lifelines.values():
            os.kill(process, signal.SIGKILL)

    def _report_deaths(self) -> None:
        processes = {process: descriptor for descriptor, (_, process) in self._lifelines.items()}
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                descriptor = processes[ended[0]]
                lifeline, _ = self._lifelines.pop(descriptor)
                with suppress(KeyError):
                    self._poll.unregister(descriptor)
                with lifeline, suppress(OSError):  # its worker may have gone
                    lifeline.send(EXIT_CODE.pack(os.waitstatus_to_exitcode(ended[1])))


def _be_codec_process(channel: socket.socket, server: int) -> NoReturn:
    try:
        end_with_parent(signal.SIGKILL)
        if os.getppid() == server:
            _be_expendable()
            serve(channel)
        os._exit(0)
    finally:
        os._exit(2)


def _be_expendable() -> None:
    """Be what the kernel kills first where memory is short."""
    if sys.platform == "linux":
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    main()
