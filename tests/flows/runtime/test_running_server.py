"""Only a real Prefect server is used without being configured."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import urlsplit

import pytest
from harness import Api

from darkroom.flows.runtime.running_server import find_server


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch):
    return lambda port: monkeypatch.setenv("PREFECT_SERVER_API_PORT", str(port))


def test_a_prefect_server_is_found(api: Api, at):
    at(urlsplit(api.url).port)
    assert find_server() == api.url


@pytest.mark.parametrize(("body", "noted"), [(b'"0.1"', ["has version 0.1, not"]), (b"<html>", []), (b"{}", [])])
def test_other_servers_are_not_used_and_one_of_another_version_is_noted(body: bytes, noted: list[str], at):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        at(server.server_port)
        notes: list[str] = []
        assert find_server(notes.append) is None
        server.shutdown()
        thread.join()
    assert len(notes) == len(noted)
    assert all(part in note for part, note in zip(noted, notes, strict=True))


def test_no_server_is_found_where_nothing_listens(at):
    at(9)
    assert find_server() is None
