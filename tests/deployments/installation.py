"""One installation: its environment, the commands run in it, the processes they start, and a webhook."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from harness import CHECKOUT, Api, Ended, eventually
from prefect.client.orchestration import SyncPrefectClient

ONE_WORKER = 'compute={"workers": 1}'


@dataclass
class Receiver:
    """A webhook that keeps the messages it is sent."""

    url: str
    messages: list[dict[str, Any]] = field(default_factory=list)

    def wait_for(self, text: str) -> dict[str, Any]:
        """Return the first message with a text in its body."""
        return eventually(lambda: next((one for one in self.messages if text in one["body"]), None))


@dataclass
class Installation:
    """A home directory, an interpreter, and all processes that are started with them."""

    environment: dict[str, str]
    log: Path
    """The output of the module that was started last."""

    python: str = sys.executable
    cwd: Path = CHECKOUT

    @property
    def api(self) -> Api:
        return Api(self.environment["PREFECT_API_URL"], Path(self.environment["HOME"]))

    def prefect(self, *arguments: str) -> Ended:
        """Run the `prefect` command to its end."""
        return self.module("prefect", *arguments)

    def module(self, *arguments: str, **environment: str) -> Ended:
        """Run a module to its end."""
        done = subprocess.run(
            [self.python, "-m", *arguments],
            env=self.environment | environment,
            cwd=self.cwd,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def client(self) -> SyncPrefectClient:
        """Return Prefect's own client, which repeats requests when a busy server asks for it."""
        return SyncPrefectClient(self.environment["PREFECT_API_URL"])

    def run(self, deployment: str, **parameters: Any) -> str:
        """Create a flow run that works on one core, and return its id."""
        with self.client() as client:
            found = client.read_deployment_by_name(deployment)
            parameters = {name: str(value) for name, value in parameters.items()} | {"compute": {"workers": 1}}
            return str(client.create_flow_run_from_deployment(found.id, parameters=parameters).id)

    def ended(self, run_id: str, state: str, seconds: float = 180) -> dict[str, Any]:
        """Wait until a flow run has ended, check its state, and return the run."""
        ends = {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}
        eventually(lambda: self.api.flow_run(run_id)["state_type"] in ends, seconds)
        flow_run = self.api.flow_run(run_id)
        assert flow_run["state_type"] == state, flow_run["state"]["message"]
        return flow_run

    def automations(self) -> dict[str, dict[str, Any]]:
        """Return the server's automations by name; no two have the same."""
        found = self.api.post("automations/filter", {})
        assert len({one["name"] for one in found}) == len(found)
        return {one["name"]: one for one in found}

    @contextmanager
    def started(self, module: str, until: str) -> Iterator[subprocess.Popen[bytes]]:
        """Start a module and wait until it prints a text; send it SIGTERM in the end."""
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                [self.python, "-m", module],
                env=self.environment,
                cwd=self.cwd,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            eventually(lambda: until in self.log.read_text() or process.poll() is not None, 120)
            assert process.poll() is None, self.log.read_text()
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(60)

    def processes(self, words: str = "") -> list[psutil.Process]:
        """Return all processes of this home whose command line contains some words."""
        return [process for process in psutil.process_iter() if self._has(process, words)]

    def _has(self, process: psutil.Process, words: str) -> bool:
        try:
            ours = process.environ().get("HOME") == self.environment["HOME"]
            return ours and words in " ".join(process.cmdline())
        except psutil.Error:
            return False


def write_users_folder(folder: Path) -> None:
    """Write files and folders of a user that have the same names as Darkroom's own."""
    for name in ("flows", "deployments"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise ImportError('this is not of Darkroom')")
    (folder / "tasks.py").write_text("WIDTH = 32")


def copied_into_image() -> list[str]:
    """Return the paths in the checkout that the Dockerfile copies."""
    lines = (CHECKOUT / "deployments/Dockerfile").read_text().splitlines()
    return [path for line in lines if line.startswith("COPY ") for path in line.split()[1:-1]]
