"""Run everything on one machine (`make stack`): server with UI, deployments, automations, worker."""

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
from darkroom.tasks.preflight import check_locations

HOST = "127.0.0.1"
PORT = "4200"
FOLDERS = ("DARKROOM_SOURCE", "DARKROOM_DESTINATION")
DATA = Path(__file__).resolve().parents[1] / "data"
"""In a checkout, the folder of the sample dataset."""

SERVER_SECONDS = 15.0
WORKER_SECONDS = 90.0
"""Time for the worker to stop its flow runs and itself."""

READ_SECONDS = 5.0
TICK_SECONDS = 0.2
MARK = "DARKROOM_STACK"
"""An environment variable that marks all processes of a stack, even orphaned ones."""


def main() -> None:
    """Run the stack until Ctrl-C or SIGTERM. Exit codes: 0 it was stopped, 1 a process died, 2 wrong settings."""
    # A shell that starts a command in the background makes it and its children ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with terminal.exit_on_error():
        try:
            with sigterm_exits():
                _run()
        except (KeyboardInterrupt, SystemExit):
            print_line("stack", "Stopped.")


def _run() -> None:
    environment = _environment()
    api_url = environment["PREFECT_API_URL"]
    with _killed_at_exit(environment[MARK]), ExitStack() as stack:
        server = Piece("server", ["darkroom.deployments.server"], environment, quiet=True)
        stack.callback(server.stop, SERVER_SECONDS)
        _wait_until_healthy(server, f"{api_url}/health")
        print_line("server", f"UI {api_url.removesuffix('/api')}")
        deploy = Piece("deploy", ["darkroom.deployments.deploy"], environment)
        stack.callback(deploy.stop, SERVER_SECONDS)
        while deploy.process.poll() is None:
            _check(server)
        if deploy.wait():
            raise DarkroomError("The deployments could not be made; the lines above say why.")
        worker = Piece("worker", ["darkroom.deployments.flow_worker"], environment)
        stack.callback(worker.stop, WORKER_SECONDS)
        prefect = os.path.relpath(Path(sys.executable).with_name("prefect"))
        print_line("stack", f"PREFECT_API_URL={api_url} {prefect} deployment run preprocess/nightly --watch")
        print_line("stack", "runs it now, in another terminal. Ctrl-C stops all of this.")
        while True:
            _check(server, worker)


def print_line(name: str, line: str) -> None:
    """Print a line with the name of its process."""
    print(f"{name:<6} | {line}", flush=True)


class Piece:
    """A process of the stack, whose output is printed line by line with its name.

    Args:
        name: the name, up to six letters.
        command: the module to run and its arguments.
        environment: the process's environment.
        quiet: collect the output in `held` until `quiet` is set to False.
    """

    def __init__(self, name: str, command: list[str], environment: dict[str, str], *, quiet: bool = False) -> None:
        self.name = name
        self.quiet = quiet
        self.held: list[str] = []
        self.process = subprocess.Popen(  # noqa: S603 - a module, run by this interpreter
            [sys.executable, "-m", "darkroom.deployments.tied", str(os.getpid()), *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # So that Ctrl-C on the terminal reaches only the stack, which stops its processes one after another.
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            if self.quiet:
                self.held.append(line.rstrip())
            else:
                print_line(self.name, line.rstrip())

    def wait(self) -> int:
        """Wait for the process to end and its output to be read; return its exit code."""
        code = self.process.wait()
        self._reader.join(READ_SECONDS)
        return code

    def stop(self, seconds: float) -> None:
        """Terminate the process; kill it if it takes longer than some seconds."""
        if self.process.poll() is None:
            print_line("stack", f"Stopping the {self.name}.")
            self.process.terminate()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.wait()


def _check(*pieces: Piece) -> None:
    """Wait for a tick; raise `DarkroomError` if one of the processes has ended."""
    time.sleep(TICK_SECONDS)
    for piece in pieces:
        if (code := piece.process.poll()) is not None:
            how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            raise DarkroomError(f"The {piece.name} ended ({how}), so that the rest is stopped too.")


def _environment() -> dict[str, str]:
    """Return the environment of all processes; raise `SettingsError` if the user's is wrong."""
    port = os.environ.get("PREFECT_SERVER_API_PORT", PORT)
    try:
        socket.create_server((HOST, int(port))).close()
    except (OSError, ValueError, OverflowError) as error:
        raise SettingsError(
            f"PREFECT_SERVER_API_PORT: {HOST}:{port} can't be used ({error}). If a Prefect server is running there "
            "already, set PREFECT_API_URL and use 'make deploy' and 'make worker'; or choose another port."
        ) from error
    return {
        **os.environ,
        **_folders(),
        "PREFECT_API_URL": f"http://{HOST}:{port}/api",
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": port,
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # `prefect deployment run --watch` shows the flow run's log, and so why it failed or was cancelled.
        "PREFECT_SERVER_LOGS_STREAM_OUT_ENABLED": "true",
        "PREFECT_SERVER_LOGS_STREAM_PUBLISHING_ENABLED": "true",
        "PYTHONUNBUFFERED": "1",
        MARK: str(uuid4()),
    }


def _folders() -> dict[str, str]:
    """Return the variables of source and destination: the user's, or the sample dataset's."""
    given = {name: os.environ[name] for name in FOLDERS if os.environ.get(name)}
    if len(given) == len(FOLDERS):
        check_locations(given[FOLDERS[0]], given[FOLDERS[1]])
        return given
    if given or not (DATA / "sample").is_dir():
        missing = " and ".join(name for name in FOLDERS if name not in given)
        raise SettingsError(
            f"{missing} not set. Set both of {' and '.join(FOLDERS)}, or, in a checkout after 'make data/sample', none "
            "to try the sample dataset."
        )
    print_line("stack", "DARKROOM_SOURCE is not set: the sample dataset, data/sample → data/out.")
    return dict(zip(FOLDERS, (str(DATA / "sample"), str(DATA / "out")), strict=True))


def _wait_until_healthy(server: Piece, url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(url, timeout=1):  # noqa: S310 - our own http address
            # The output so far, a banner and advice, is dropped.
            server.quiet = False
            return
        time.sleep(TICK_SECONDS)
    for line in server.held:
        print_line("server", line)
    raise DarkroomError("The Prefect server did not start; the lines above say why.")


@contextmanager
def _killed_at_exit(mark: str) -> Iterator[None]:
    """Kill all marked processes at the end; some may have been orphaned by a killed worker."""
    try:
        yield
    finally:
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == mark:
                    process.kill()


if __name__ == "__main__":
    main()
