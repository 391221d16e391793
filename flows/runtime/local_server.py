"""One Prefect server for a run that has none.

Without `PREFECT_API_URL`, Prefect starts a temporary server in *every* process that needs one: the flow's
and each worker's. Here one is started for all of them, on the loopback interface, with the same database
as `prefect server start` uses, and it ends with the run, however that ends. One that is killed is replaced.
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
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import IO

from darkroom.flows.runtime.environment import environment
from darkroom.flows.runtime.signals import sigterm_exits
from darkroom.tasks.errors import DarkroomError, SettingsError

START_SECONDS = 120.0
RESTARTS = 3
"""A server that was killed so often will be killed again."""

STOP_SECONDS = 10.0
CONNECT_SECONDS = 10.0

NOBODY = Path(__file__).with_name("nobody.pem")

_SERVER_ENVIRONMENT = {
    "PREFECT__SERVER_FINAL": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_SERVER_LEVEL": "ERROR",
}


class LocalServer:
    """A Prefect server in a process of its own, which ends when its owner does, or dies."""

    def __init__(self) -> None:
        # Servers take the listening socket over: no other process can snatch the port, and requests that come
        # before one is ready, or while there is none, wait instead of failing.
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.api_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/api"
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the server
        self._environment = {**os.environ, **_SERVER_ENVIRONMENT, "PREFECT_UI_API_URL": self.api_url}
        self._process = self._launch()
        self._changing = threading.Lock()
        self._stopped = False
        self._ended = threading.Event()
        threading.Thread(target=self._keep, name="server", daemon=True).start()

    def _launch(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - this module, by this interpreter
            # -P: a folder named flows where the user happens to be is not ours.
            [sys.executable, "-P", "-m", "darkroom.flows.runtime.local_server", str(self._listener.fileno())],
            env=self._environment,
            pass_fds=[self._listener.fileno()],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            # Ctrl-C on the terminal is for the owner, which needs the server until its last word.
            start_new_session=True,
        )

    def wait_until_healthy(self) -> None:
        """Wait until the server answers.

        Raises:
            DarkroomError: it ended, or did not answer within `START_SECONDS`.
        """
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and not self._ended.is_set():
            try:
                with urllib.request.urlopen(f"{self.api_url}/health", timeout=1):  # noqa: S310 - our own http address
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.02)
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().rpartition("\n")[2]
        raise DarkroomError(
            f"The local Prefect server did not start: {said or 'it said nothing'}. Start one yourself with "
            "'prefect server start' and set PREFECT_API_URL to its address."
        )

    def _keep(self) -> None:
        """Start another server when one is killed, on the same socket and with the same database."""
        try:
            for restarts in range(RESTARTS + 1):
                code = self._process.wait()
                with self._changing:
                    if self._stopped or code >= 0 or restarts == RESTARTS:
                        break
                    _close_stdin(self._process)
                    self._process = self._launch()
        finally:
            # Who asks now shall not wait for an answer.
            self._listener.close()
            self._ended.set()

    def stop(self) -> None:
        """End the server, giving it time to store what it has been told."""
        with self._changing:
            self._stopped = True
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _close_stdin(self._process)
        self._ended.wait()
        self._errors.close()


def _close_stdin(process: subprocess.Popen[bytes]) -> None:
    if process.stdin:
        process.stdin.close()


@contextmanager
def local_server() -> Iterator[LocalServer]:
    """Run a local server, which Prefect in this process and its children will use; it may not be ready yet."""
    with sigterm_exits():
        server = LocalServer()
        with environment({"PREFECT_API_URL": server.api_url, "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false"}):
            try:
                yield server
            finally:
                _send_what_is_queued()
                server.stop()


@contextmanager
def api() -> Iterator[None]:
    """Provide a Prefect API: the one that is configured, or else a local server for as long as it takes."""
    from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

    if get_current_settings().api.url:
        with sigterm_exits():
            yield
        return
    with local_server() as server, temporary_settings({PREFECT_API_URL: server.api_url}), unwatched():
        server.wait_until_healthy()
        yield


def check_api(remedy: str = "Start it, mend the setting, or unset it to have a local server for this run.") -> None:
    """Make sure that the configured Prefect API answers, and lets this user in.

    Args:
        remedy: what the user can do if none answers.

    Raises:
        SettingsError: it doesn't.
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
    """Return a URL as it may be shown."""
    scheme, mark, rest = url.partition("://")
    host = rest.partition("/")[0]
    return f"{scheme}{mark}…@{rest[host.rindex('@') + 1 :]}" if "@" in host else url


@contextmanager
def unwatched() -> Iterator[None]:
    """Leave out the flow's heartbeats, by which a lasting server notices a run that died.

    Nobody looks for them on one that ends with the run, and Prefect takes up to a second to end them.
    """
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


@contextmanager
def light_tls() -> Iterator[None]:
    """Spare the HTTP clients of a plain-http API from reading all of the world's certificates.

    Prefect makes several clients a task run, and each reads them for 25 ms, or ten times that in a worker
    that has just been forked. With an https API nothing changes. Only for workers of this machine: the setting goes
    with the task runs, and the file is not where others have theirs.
    """
    from prefect.settings import PREFECT_API_SSL_CERT_FILE, get_current_settings, temporary_settings

    if not str(get_current_settings().api.url).startswith("http://"):
        yield
        return
    with temporary_settings({PREFECT_API_SSL_CERT_FILE: str(NOBODY)}):
        yield


def _send_what_is_queued() -> None:
    """Send logs and events that Prefect holds back in batches, while there is a server to take them."""
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
