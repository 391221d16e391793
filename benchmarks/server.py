"""The Prefect server that is already running when a flow starts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.measure import CommandError

START_SECONDS = 120.0
STOP_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A Prefect server that answers."""

    api_url: str
    pid: int

    def cpu_seconds(self) -> float:
        """Return the user and system time that the server has used so far."""
        process = psutil.Process(self.pid)
        times = [each.cpu_times() for each in [process, *process.children(recursive=True)]]
        return float(sum(each.user + each.system + each.children_user + each.children_system for each in times))


@contextmanager
def prefect_server(
    env: Mapping[str, str], log: Path, module: str = "prefect server start", host: str = "127.0.0.1"
) -> Iterator[RunningServer]:
    """Run a Prefect server on a free port until the block ends.

    Args:
        env: its environment.
        log: the file for what it writes.
        module: the module for `python -m`, and its first arguments.
        host: the address of this machine at which it listens.

    Raises:
        CommandError: it does not answer; has the text of `log`.
    """
    port = _free_port(host)
    command = [sys.executable, "-m", *module.split(), "--host", host, "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=env,
            cwd=Path(__file__).parents[1],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C on the terminal is for the measurement, which then ends the server.
            start_new_session=True,
        )
    try:
        api_url = f"http://{host}:{port}/api"
        if not _becomes_healthy(process, api_url):
            raise CommandError(f"{module} does not answer:\n{log.read_text(errors='replace')}")
        yield RunningServer(api_url, process.pid)
    finally:
        _stop(process)


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as listener:
        return int(listener.getsockname()[1])


def _becomes_healthy(process: subprocess.Popen[bytes], api_url: str) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(f"{api_url}/health", timeout=1):  # noqa: S310 - our own http address
            return True
        time.sleep(0.1)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and whatever it has started."""
    for number, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, None)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            return
