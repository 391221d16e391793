"""Fixtures of the tests of deployments."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from harness import clean_environment, save
from installation import Installation, Receiver

from benchmarks.server import prefect_server
from data.generate import photo
from tests.ports import free_ports


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.messages.append(json.loads(body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_arguments: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        received = Receiver(f"http://127.0.0.1:{server.server_port}/hooks/T0K3N")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield received
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a source of ten small photos."""
    source = tmp_path_factory.mktemp("few") / "photos"
    for number in range(10):
        save(source / f"{number:03d}.jpg", photo(160, 120, seed=number), quality=90)
    return source


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a source that keeps one process busy for more than a few seconds: links to a large photo."""
    source = tmp_path_factory.mktemp("many") / "large"
    save(source / "000.jpg", photo(4000, 3000, seed=0), quality=90)
    for number in range(1, 200):
        os.link(source / "000.jpg", source / f"{number:03d}.jpg")
    return source


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory, few: Path, receiver: Receiver) -> Iterator[Installation]:
    """Return the environment of a nightly run, with a server and a worker that poll more often than usual."""
    home = tmp_path_factory.mktemp("home")
    [port] = free_ports(1)
    environment = clean_environment(home) | {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_LOGS_STREAM_OUT_ENABLED": "true",
        "PREFECT_SERVER_LOGS_STREAM_PUBLISHING_ENABLED": "true",
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
        "DARKROOM_SOURCE": str(few),
        "DARKROOM_DESTINATION": str(home / "nightly"),
        "DARKROOM_NOTIFY": receiver.url,
    }
    installation = Installation(environment, home / "log")
    yield installation
    for left in installation.processes():
        left.kill()


@pytest.fixture(scope="module")
def server(installation: Installation) -> Iterator[Installation]:
    """Provide the installation with a running Prefect server."""
    log = installation.log.with_name("server.log")
    with prefect_server(installation.environment, log, "darkroom.deployments.server") as running:
        installation.environment["PREFECT_API_URL"] = running.api_url
        yield installation
    dropped = list(Path(installation.environment["PREFECT_HOME"]).glob("dlq/*"))
    assert not dropped, "the server dropped events: a notification may be missing"
    written = log.read_text()
    assert "database is locked" not in written
    assert "already in terminal state" not in written, "an automation fired on a run that had ended"
