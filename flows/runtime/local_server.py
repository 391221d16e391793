"""One Prefect server for a run that has none.

Without `PREFECT_API_URL`, Prefect starts a temporary server in *every* process that needs one: the flow's and each
worker's. Here one is started for all of them, on the loopback interface, with the database of `prefect server start`.
It ends with the run, however that ends.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import IO

from darkroom.flows.runtime.running_server import find_server
from darkroom.flows.runtime.signals import sigterm_exits
from darkroom.tasks.errors import DarkroomError, SettingsError

START_SECONDS = 120.0
STOP_SECONDS = 10.0
CONNECT_SECONDS = 10.0

ONE_CERTIFICATE = Path(__file__).with_name("nobody.pem")

_SERVER_ENVIRONMENT = {
    "PREFECT__SERVER_FINAL": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_SERVER_LEVEL": "ERROR",
}


class LocalServer:
    """A Prefect server in a process of its own, which ends when its owner does, or dies."""

    def __init__(self) -> None:
        self._stopping = False
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the server
        # The server inherits the listening socket: no other process can take the port, and requests that come before
        # it is ready wait instead of failing.
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
            self.api_url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
            self._process = subprocess.Popen(  # noqa: S603 - this module, by this interpreter
                # -P: a package in the user's working directory must not shadow this one.
                [sys.executable, "-P", "-m", "darkroom.flows.runtime.local_server", str(listener.fileno())],
                env={**os.environ, **_SERVER_ENVIRONMENT, "PREFECT_UI_API_URL": self.api_url},
                pass_fds=[listener.fileno()],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                # Ctrl-C on the terminal is for the owner, which needs the server until its end.
                start_new_session=True,
            )

    def wait_until_healthy(self) -> None:
        """Wait until the server answers.

        Raises:
            DarkroomError: it ended, or did not answer within `START_SECONDS`.
        """
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.api_url}/health", timeout=1):  # noqa: S310 - our own http address
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.02)
        self._errors.seek(0)
        last_line = self._errors.read().decode(errors="replace").strip().rpartition("\n")[2]
        raise DarkroomError(
            f"The local Prefect server did not start: {last_line or 'it printed no error'}. Start one yourself with "
            "'prefect server start' and set PREFECT_API_URL to its address."
        )

    def is_lost(self) -> bool:
        """Wait for the end of the server, and return whether it ended without being stopped."""
        self._process.wait()
        return not self._stopping

    def stop(self) -> None:
        """End the server, after it has stored the events that it has received."""
        self._stopping = True
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()
        self._errors.close()


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, for child processes, and restore them at the end."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def local_server() -> Iterator[LocalServer]:
    """Run a local server for Prefect in this process and its children; it may not be ready yet."""
    with sigterm_exits():
        server = LocalServer()
        with environment({"PREFECT_API_URL": server.api_url, "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false"}):
            try:
                yield server
            finally:
                _flush_logs_and_events()
                server.stop()


@contextmanager
def api() -> Iterator[None]:
    """Provide a Prefect API: the configured one, or one that runs here, or else a server that ends with the block."""
    from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

    if get_current_settings().api.url:
        with sigterm_exits():
            yield
        return
    if url := find_server():
        with sigterm_exits(), environment({"PREFECT_API_URL": url}), temporary_settings({PREFECT_API_URL: url}):
            yield
        return
    with local_server() as server, temporary_settings({PREFECT_API_URL: server.api_url}), without_heartbeats():
        server.wait_until_healthy()
        yield


def check_api(remedy: str = "Start it, mend the setting, or unset it to have a local server for this run.") -> None:
    """Raise if the configured Prefect API does not answer, or does not accept this user.

    Args:
        remedy: what the user can do if it does not answer.

    Raises:
        SettingsError: which of them, and what to do.
    """
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import get_current_settings

    url = without_password(str(get_current_settings().api.url))
    try:
        with get_client({"timeout": CONNECT_SECONDS}, sync_client=True) as client:
            client.api_version()
    except PrefectHTTPStatusError as error:
        if error.response.status_code in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            raise SettingsError(
                f"The Prefect server at {url} does not let this user in. Set PREFECT_API_AUTH_STRING (or, of Prefect "
                "Cloud, PREFECT_API_KEY) to what it asks for."
            ) from error
        answer = f"{error.response.status_code} {error.response.reason_phrase}"
        raise SettingsError(f"PREFECT_API_URL: {url} is not the address of a Prefect API ({answer}).") from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise SettingsError(f"PREFECT_API_URL: no Prefect server answers at {url} ({error}). {remedy}") from error


def without_password(url: str) -> str:
    """Return a URL with its user name and password, if any, replaced by …."""
    scheme, mark, rest = url.partition("://")
    host = rest.partition("/")[0]
    return f"{scheme}{mark}…@{rest[host.rindex('@') + 1 :]}" if "@" in host else url


@contextmanager
def without_heartbeats() -> Iterator[None]:
    """Disable the flow's heartbeats: only automations of deployments use them, and ending them takes up to 1 s."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


@contextmanager
def light_tls() -> Iterator[None]:
    """Let the HTTP clients of a plain-http API read one certificate instead of a complete CA bundle.

    Prefect makes several clients a task run, and each reads the bundle for 25 ms, or ten times that in a worker that
    has just been forked. With an https API nothing changes. Only for workers on this machine: task runs carry the
    setting, and the file's path is this machine's.
    """
    from prefect.settings import PREFECT_API_SSL_CERT_FILE, get_current_settings, temporary_settings

    if not str(get_current_settings().api.url).startswith("http://"):
        yield
        return
    with temporary_settings({PREFECT_API_SSL_CERT_FILE: str(ONE_CERTIFICATE)}):
        yield


def _flush_logs_and_events() -> None:
    """Send the logs and events that Prefect collects in batches, while the server still runs."""
    if "prefect" in sys.modules:
        from prefect.events.worker import EventsWorker
        from prefect.logging.handlers import APILogWorker

        for service in (APILogWorker, EventsWorker):
            service.drain_all(timeout=5)


def _serve(descriptor: int) -> None:
    """Serve the API on a listening socket until SIGTERM, or until the owner's end of stdin closes."""
    threading.Thread(target=_end_with_owner, daemon=True).start()
    import uvicorn
    from prefect.server.api.server import create_app

    config = uvicorn.Config(create_app, factory=True, log_level="error", lifespan="on")
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=descriptor)])


def _end_with_owner() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
