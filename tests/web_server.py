"""A web server on loopback, for tests, which set its response to each path, right or wrong."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Answer:
    """The server's response to a path."""

    data: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    """Value of the Content-Length header; None: the true length, -1: no such header."""

    heads: bool = True
    """Whether HEAD requests work; otherwise they get 405."""


class WebServer:
    """The running server.

    Attributes:
        url: its base URL.
        answers: its responses, by path with query.
        requests: method and path of each request so far.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: dict[str, Answer] = {}
        self.requests: list[tuple[str, str]] = []


@contextmanager
def web_server() -> Iterator[WebServer]:
    """Run a web server until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            server.requests.append((self.command, self.path))
            answer = server.answers.get(self.path, Answer(status=404))
            if self.command == "HEAD" and not answer.heads:
                answer = Answer(status=405)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            length = len(answer.data) if answer.length is None else answer.length
            self.send_header(*(("Connection", "close") if length < 0 else ("Content-Length", str(length))))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(answer.data)
            self.close_connection = length != len(answer.data)

        do_HEAD = do_GET  # noqa: N815 - the name that the library calls

        def log_message(self, *_: object) -> None:
            pass

    class Listener(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Print nothing: a client that has read enough of a response closes the connection."""

    with Listener(("127.0.0.1", 0), Handler) as listener:
        server = WebServer(f"http://127.0.0.1:{listener.server_port}")
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            listener.shutdown()
