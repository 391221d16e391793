"""All of it on one machine, in the foreground: server with UI, deployments, automations and a worker. `make stack`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import psutil

from darkroom.flows.cli import terminal
from darkroom.flows.runtime.local_server import START_SECONDS
from darkroom.flows.runtime.signals import sigterm_exits
from darkroom.tasks.errors import DarkroomError, SettingsError

CHECKOUT = Path(__file__).resolve().parents[1]
HOST = "127.0.0.1"
PORT = "4200"
SERVER_SECONDS = 15.0
WORKER_SECONDS = 90.0
"""More than the worker takes at most to end its flow runs and itself."""

LEASE_STORAGE = "prefect.server.concurrency.lease_storage.filesystem"
"""Where the server notes which run has a deployment's only place. In its memory, a restart would end that run."""

READ_SECONDS = 5.0
TICK_SECONDS = 0.2
MARK = "DARKROOM_STACK"
"""In the environment of all that a stack has started, whoever its parent is by now."""


def main() -> None:
    """Run the stack until Ctrl-C or SIGTERM. Exit codes: 0 it was stopped, 1 a piece of it died, 2 wrong settings."""
    # A shell that starts a command in the background has it and its children ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with terminal.exit_on_error():
        try:
            with sigterm_exits():
                _run()
        except (KeyboardInterrupt, SystemExit):
            say("stack", "Stopped.")


def _run() -> None:
    api_url, environment = _environment()
    with _swept(environment[MARK]), ExitStack() as stack:
        server = Piece("server", ["darkroom.deployments.prefect_server"], environment, quiet=True)
        stack.callback(server.stop, SERVER_SECONDS)
        _wait_until_healthy(server, f"{api_url}/health")
        say("server", f"UI {api_url.removesuffix('/api')}")
        deploy = Piece("deploy", ["darkroom.deployments.deploy"], environment)
        stack.callback(deploy.stop, SERVER_SECONDS)
        while deploy.process.poll() is None:
            _check(server)
        if deploy.wait():
            raise DarkroomError("The deployments could not be made; the lines above say why.")
        worker = Piece("worker", ["darkroom.deployments.flow_worker"], environment)
        stack.callback(worker.stop, WORKER_SECONDS)
        prefect = os.path.relpath(Path(sys.executable).with_name("prefect"))
        say("stack", f"PREFECT_API_URL={api_url} {prefect} deployment run preprocess/nightly --watch")
        say("stack", "runs it now, in another terminal. Ctrl-C stops all of this.")
        while True:
            _check(server, worker)


def say(name: str, line: str) -> None:
    """Print a line of one of the pieces."""
    print(f"{name:<6} | {line}", flush=True)


class Piece:
    """A process of the stack, whose output is shown line by line under its name.

    Args:
        name: for people.
        arguments: the module to run, and what is passed to it.
        environment: the process's.
        quiet: keep the output back until the process fails or `show` is called.
    """

    def __init__(self, name: str, arguments: list[str], environment: dict[str, str], *, quiet: bool = False) -> None:
        self.name = name
        self._held: list[str] = []
        self._quiet = quiet
        self.process = subprocess.Popen(  # noqa: S603 - a module, by this interpreter
            [sys.executable, "-m", "darkroom.deployments.tied", str(os.getpid()), *arguments],
            env=environment,
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # Ctrl-C on the terminal is for the stack, which ends its pieces one after another.
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            if self._quiet:
                self._held.append(line.rstrip())
            else:
                say(self.name, line.rstrip())

    def show(self) -> None:
        """Print what was kept back, and keep nothing back from now on."""
        self._quiet = False
        for line in self._held:
            say(self.name, line)

    def forget(self) -> None:
        """Drop what was kept back, and keep nothing back from now on."""
        self._quiet = False
        self._held.clear()

    def wait(self) -> int:
        """Wait for the end of the process and of its output; return its exit code."""
        code = self.process.wait()
        self._reader.join(READ_SECONDS)
        return code

    def stop(self, seconds: float) -> None:
        """End the process, by force if it takes longer."""
        if self.process.poll() is None:
            say("stack", f"Stopping the {self.name}.")
            self.process.terminate()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.wait()


def _check(*pieces: Piece) -> None:
    """Wait a moment, and make sure that all pieces are still there then.

    Raises:
        DarkroomError: one has ended.
    """
    time.sleep(TICK_SECONDS)
    for piece in pieces:
        if (code := piece.process.poll()) is not None:
            raise DarkroomError(f"The {piece.name} ended ({_describe(code)}), so that the rest is stopped too.")


def _environment() -> tuple[str, dict[str, str]]:
    """Return the address of the API to be, and the environment of all pieces.

    Raises:
        SettingsError: something in the environment is not as it should be.
    """
    port = os.environ.get("PREFECT_SERVER_API_PORT", PORT)
    _check_port(port)
    api_url = f"http://{HOST}:{port}/api"
    return api_url, {
        **os.environ,
        **_dataset(),
        "PREFECT_API_URL": api_url,
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": port,
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": LEASE_STORAGE,
        "PYTHONUNBUFFERED": "1",
        MARK: str(uuid4()),
    }


def _dataset() -> dict[str, str]:
    """Return what to prepare, by default the sample dataset."""
    names = ("DARKROOM_SOURCE", "DARKROOM_DESTINATION")
    given = {name: os.environ[name] for name in names if os.environ.get(name)}
    if len(given) == 1:
        [missing] = set(names) - set(given)
        raise SettingsError(
            f"{missing} is not set. Set both of {' and '.join(names)}, or none to try the sample dataset."
        )
    if given:
        return given
    say("stack", "DARKROOM_SOURCE is not set: the sample dataset, data/sample → data/out.")
    return dict(zip(names, (str(CHECKOUT / "data/sample"), str(CHECKOUT / "data/out")), strict=True))


def _check_port(port: str) -> None:
    try:
        socket.create_server((HOST, int(port))).close()
    except (OSError, ValueError, OverflowError) as error:
        raise SettingsError(
            f"PREFECT_SERVER_API_PORT: {HOST}:{port} can't be used ({error}). If a Prefect server is running there "
            "already, set PREFECT_API_URL and use 'make deploy' and 'make worker'; or choose another port."
        ) from error


def _wait_until_healthy(server: Piece, url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(url, timeout=1):  # noqa: S310 - our own http address
            # The first lines are a picture and advice; what comes from now on is worth reading.
            server.forget()
            return
        time.sleep(TICK_SECONDS)
    server.show()
    raise DarkroomError("The Prefect server did not start; the lines above say why.")


@contextmanager
def _swept(mark: str) -> Iterator[None]:
    """Leave nothing behind: what lost its parent (somebody killed a worker) is killed in the end."""
    try:
        yield
    finally:
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == mark:
                    process.kill()


def _describe(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


if __name__ == "__main__":
    main()
