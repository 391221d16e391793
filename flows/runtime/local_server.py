"""One Prefect server for a run that has none.

Without `PREFECT_API_URL`, Prefect starts a temporary server in *every* process that needs one: the flow's and each
worker's. Here one is started for all of them, on the loopback interface, with the database of `prefect server start`.
It ends with the run, also if the run is killed.
"""

from __future__ import annotations

import os
import re
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
from contextlib import contextmanager, nullcontext
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any

from darkroom.flows.runtime.database import let_transactions_wait, locked_database, prefect_home
from darkroom.flows.runtime.environment import environment
from darkroom.flows.runtime.machine import check_prefect_home
from darkroom.flows.runtime.proxies import loopback_direct
from darkroom.flows.runtime.running_server import find_server
from darkroom.flows.runtime.signals import sigterm_exits
from darkroom.tasks.errors import DarkroomError, SettingsError

START_SECONDS = 120.0
STOP_SECONDS = 10.0
CONNECT_SECONDS = 8.0

ONE_CERTIFICATE = Path(__file__).with_name("nobody.pem")

_SERVER_ENVIRONMENT = {
    "PREFECT__SERVER_FINAL": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_SERVER_LEVEL": "ERROR",
    # Standard error is for the reason why the server did not start.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "ERROR",
}


class LocalServer:
    """A Prefect server in a child process, which ends when this process does, or dies."""

    def __init__(self) -> None:
        self._stopping = False
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the server
        # The server inherits the listening socket: no other process can take the port, and early requests wait.
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
                # Ctrl-C on the terminal must not reach the server, which is needed until the end.
                start_new_session=True,
            )
        # Looked up before the server, which imports for seconds, locks it itself.
        self._locked_at_start = locked_database()

    def waits_for(self) -> str:
        """Return what `wait_until_healthy` waits for, as a noun phrase."""
        if self._is_locked():
            return f"Prefect's database {self._locked_at_start}, which another process has locked"
        return "the local Prefect server to start"

    def _is_locked(self) -> bool:
        return bool(self._locked_at_start and locked_database())

    def wait_until_healthy(self) -> None:
        """Wait until the server answers; raise `DarkroomError` if it ends, or does not within `START_SECONDS`."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.api_url}/health", timeout=1):  # noqa: S310 - our own http address
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.02)
        raise self._failure()

    def _failure(self) -> DarkroomError:
        if self._is_locked():
            return DarkroomError(
                f"Prefect's database {self._locked_at_start} is locked by another process, which 'fuser' shows. End "
                "that process, or set PREFECT_HOME to another folder."
            )
        self._errors.seek(0)
        cause = _cause(self._errors.read().decode(errors="replace"))
        remedy = (
            f"See that {prefect_home()} is this user's, has room, and is not damaged. " if "database" in cause else ""
        )
        return DarkroomError(
            f"The local Prefect server did not start: {cause}. {remedy}Start one yourself with 'prefect server start' "
            "and set PREFECT_API_URL to its address."
        )

    def is_lost(self) -> bool:
        """Wait for the server to end, and return whether it ended without `stop`."""
        self._process.wait()
        return not self._stopping

    def stop(self) -> None:
        """End the server once it has stored the events that it received."""
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
def local_server() -> Iterator[LocalServer]:
    """Start a local server, for this process and its children, that may not be ready yet; stop it at the end."""
    check_prefect_home()
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
    """Provide a Prefect API: the configured one, one on this machine, or a local server until the block ends."""
    from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

    api_url = get_current_settings().api.url
    if api_url:
        with sigterm_exits(), loopback_direct(str(api_url)):
            yield
        return
    with sigterm_exits(), loopback_direct(None):
        if url := find_server():
            with environment({"PREFECT_API_URL": url}), temporary_settings({PREFECT_API_URL: url}):
                yield
            return
        with (
            local_server() as server,
            temporary_settings({PREFECT_API_URL: server.api_url}),
            lean_client(own_process=True),
        ):
            server.wait_until_healthy()
            yield


def check_api(remedy: str = "Start it, mend the setting, or unset it to have a local server for this run.") -> None:
    """Raise `SettingsError` if the configured Prefect API does not answer, or refuses this user.

    Args:
        remedy: what the user can do if it does not answer.
    """
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, get_current_settings, temporary_settings

    url = without_password(str(get_current_settings().api.url))
    try:
        with (
            temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
            get_client({"timeout": CONNECT_SECONDS}, sync_client=True) as client,
        ):
            client.api_version()
    except PrefectHTTPStatusError as error:
        if error.response.status_code in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            raise SettingsError(
                f"The Prefect server at {url} refuses this user. Set PREFECT_API_AUTH_STRING (for Prefect Cloud, "
                "PREFECT_API_KEY) to its credentials."
            ) from error
        answer = f"{error.response.status_code} {error.response.reason_phrase}"
        raise SettingsError(f"PREFECT_API_URL: {url} is not the address of a Prefect API ({answer}).") from error
    except httpx.TimeoutException as error:
        raise SettingsError(
            f"PREFECT_API_URL: {url} did not answer within {CONNECT_SECONDS:.0f} s. {remedy}"
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL, ImportError, OSError, ValueError) as error:
        raise SettingsError(f"PREFECT_API_URL: no Prefect server answers at {url} ({error}). {remedy}") from error


def without_password(url: str) -> str:
    """Return a URL with its user name and password, if any, replaced by `…`."""
    scheme, mark, rest = url.partition("://")
    host = rest.partition("/")[0]
    return f"{scheme}{mark}…@{rest[host.rindex('@') + 1 :]}" if "@" in host else url


@contextmanager
def lean_client(*, own_process: bool = False, local_workers: bool = True) -> Iterator[None]:
    """Turn off what slows Prefect's clients down and a run doesn't need, until the block ends.

    Args:
        own_process: the run belongs to the command line. Without heartbeats, which only automations of deployments use,
            it ends up to 1 s sooner.
        local_workers: workers run on this machine. HTTP clients of a plain-http API then read one certificate instead
            of a CA bundle, which takes 25 ms for each of several clients a task run, and ten times that in a worker
            that has just been forked. Not for other machines: task runs carry the setting with the file's path.
    """
    from prefect.settings import (
        PREFECT_API_SSL_CERT_FILE,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        get_current_settings,
        temporary_settings,
    )

    api = get_current_settings().api
    lean: dict[Any, Any] = {}
    if own_process:
        lean[PREFECT_FLOWS_HEARTBEAT_FREQUENCY] = None
    if local_workers and str(api.url).startswith("http://") and api.ssl_cert_file != str(ONE_CERTIFICATE):
        lean[PREFECT_API_SSL_CERT_FILE] = str(ONE_CERTIFICATE)
    with temporary_settings(lean) if lean else nullcontext():  # a change validates all settings, which takes 25 ms
        yield


def _flush_logs_and_events() -> None:
    """Send the logs and events that Prefect has batched, while the server still runs."""
    if "prefect" in sys.modules:
        from prefect.events.worker import EventsWorker
        from prefect.logging.handlers import APILogWorker

        for service in (APILogWorker, EventsWorker):
            service.drain_all(timeout=5)


def _cause(errors: str) -> str:
    """Return the last error message in a server's standard error."""
    raised = re.findall(r"^(?:\w+\.)*\w+(?:Error|Exception): (?:\(\S+\) )?(.+)$", errors, re.MULTILINE)
    lines = errors.strip().splitlines()
    return str(next(reversed(raised or lines), "it printed no error")).rstrip(".")


def _serve(descriptor: int) -> None:
    """Serve the API on a listening socket until SIGTERM, or until the owner's end of stdin closes."""
    threading.Thread(target=_end_with_owner, daemon=True).start()
    import uvicorn
    from prefect.server.api.server import create_app

    let_transactions_wait()
    config = uvicorn.Config(create_app, factory=True, log_level="error", lifespan="on")
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=descriptor)])


def _end_with_owner() -> None:
    while os.read(0, 1):  # unbuffered: the lock of a buffered reader would crash the interpreter when it ends
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
