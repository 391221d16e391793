"""Fixtures of the tests of deployments: the stack, as a user starts it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from harness import CHECKOUT, Api, Ended, clean_environment, eventually, save

from data.generate import photo


@dataclass
class Receiver:
    """A webhook that notes what it is sent."""

    url: str
    messages: list[dict[str, Any]] = field(default_factory=list)

    def told_of(self, text: str) -> dict[str, Any]:
        """Wait for a message with a text in it."""
        return eventually(lambda: next((one for one in self.messages if text in one["body"]), None))


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
    """A source of ten small photos."""
    source = tmp_path_factory.mktemp("few") / "photos"
    for number in range(10):
        save(source / f"{number:03d}.jpg", photo(160, 120, seed=number), quality=90)
    return source


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source that keeps one process busy for more than a few seconds: links to a large photo."""
    source = tmp_path_factory.mktemp("many") / "large"
    save(source / "000.jpg", photo(4000, 3000, seed=0), quality=90)
    for number in range(1, 200):
        os.link(source / "000.jpg", source / f"{number:03d}.jpg")
    return source


@dataclass
class Stack:
    """What `make stack` runs."""

    process: subprocess.Popen[bytes]
    environment: dict[str, str]
    output: Path

    @property
    def api(self) -> Api:
        return Api(self.environment["PREFECT_API_URL"], Path(self.environment["HOME"]))

    def prefect(self, *arguments: str) -> Ended:
        """Run the `prefect` command to its end."""
        return self.python("-m", "prefect", *arguments)

    def python(self, *arguments: str, **environment: str) -> Ended:
        """Run Python in the checkout to its end."""
        done = subprocess.run(
            [sys.executable, *arguments],
            env=self.environment | environment,
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def processes(self) -> list[psutil.Process]:
        """Return all processes that the stack has started, whoever their parent is."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get("HOME") == self.environment["HOME"] and process.pid != self.process.pid
        except psutil.Error:
            return False

    def running(self, module: str) -> list[psutil.Process]:
        """Return those of its processes that run a module or command."""
        return [one for one in self.processes() if module in " ".join(one.cmdline())]


@contextmanager
def started_stack(environment: dict[str, str], output: Path) -> Iterator[Stack]:
    """Start the stack and wait until its worker works; what is left of it in the end is killed."""
    with output.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "deployments.stack"],
            env=environment,
            cwd=CHECKOUT,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    stack = Stack(process, environment, output)
    try:
        eventually(lambda: "started!" in output.read_text() or process.poll() is not None, 120)
        assert process.poll() is None, output.read_text()
        yield stack
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        for left in stack.processes():
            left.kill()


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, few: Path, receiver: Receiver) -> dict[str, str]:
    """The environment of somebody who sets up a nightly run; the server and the worker look around more often."""
    home = tmp_path_factory.mktemp("home")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return clean_environment(home) | {
        "PREFECT_SERVER_API_PORT": str(port),
        # Also for the `prefect` commands of the tests; the stack finds it by itself.
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "1",
        "DARKROOM_SOURCE": str(few),
        "DARKROOM_DESTINATION": str(home / "nightly"),
        "DARKROOM_NOTIFY": receiver.url,
    }
