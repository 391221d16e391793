"""A proxy in front of an HTTP server that makes some requests fail: with errors, cut responses or none at all."""

import http.client
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_ERROR = "<?xml version='1.0'?><Error><Code>{}</Code><Message>made up</Message></Error>"


Answer = tuple[int, dict[str, str], bytes]
"""Status, headers and body."""

Forward = Callable[[str, str, str, Mapping[str, str], bytes], Answer]
"""Takes what `send` does."""


@dataclass
class Fault:
    """How some requests fail.

    Args:
        does: `(500, "InternalError")` or another status and code; `reset`: the connection ends before the request is
            forwarded; `lost`: after it was forwarded, without a response; `cut`: in the middle of the response body.
        methods: HTTP methods of the requests that fail.
        part: text that their path or query contains.
        times: number of requests that fail.
    """

    does: tuple[int, str] | str
    methods: str = "GET HEAD PUT POST DELETE"
    part: str = ""
    times: int = 1


@dataclass
class FaultProxy:
    url: str = ""
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    """Method and path of every request so far."""

    choose: Callable[[int], Fault | None] | None = None
    """Returns the fault, if any, of the request with a number, from 1; asked where none of `faults` applies."""

    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fault_of(self, method: str, path: str) -> Fault | None:
        with self._lock:
            self.requests.append(f"{method} {path}")
            for fault in self.faults:
                if fault.times and method in fault.methods.split() and fault.part in path:
                    fault.times -= 1
                    return fault
            return self.choose(len(self.requests)) if self.choose else None


def send(address: str, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
    """Send a request to a server, and return its answer."""
    with closing(http.client.HTTPConnection(address, timeout=30)) as connection:
        connection.putrequest(method, path, skip_host="Host" in headers, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()


def _handler(proxy: FaultProxy, address: str, forward: Forward):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fault = proxy.fault_of(self.command, self.path)
            if fault and isinstance(fault.does, tuple):
                status, code = fault.does
                self.answer(status, {}, b"" if self.command == "HEAD" else _ERROR.format(code).encode())
                return
            if fault and fault.does == "reset":
                self.reset()
                return
            status, headers, data = forward(address, self.command, self.path, self.headers, body)
            if fault and fault.does == "lost":
                self.reset()
            else:
                self.answer(status, headers, data, cut=bool(fault and fault.does == "cut" and data))

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815 - http.server's names

        def answer(self, status, headers, data, *, cut=False):
            self.send_response_only(status)
            length = headers.get("Content-Length", len(data)) if self.command == "HEAD" else len(data)
            for name, value in headers.items():
                if name.lower() not in {"content-length", "connection", "transfer-encoding"}:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if cut else data)
            if cut:
                self.wfile.flush()
                self.close_connection = True

        def reset(self):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True

        def log_message(self, *_arguments):
            pass

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass  # clients close connections early


@contextmanager
def fault_proxy(url: str, forward: Forward = send):
    """Run a proxy in front of the server at a URL until the block ends; `forward` sends requests to the server."""
    proxy = FaultProxy()
    with _Server(("127.0.0.1", 0), _handler(proxy, urlsplit(url).netloc, forward)) as server:
        proxy.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield proxy
        server.shutdown()
        thread.join()
