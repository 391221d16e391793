"""What the tests of deployments share: commands, processes and a webhook of one installation."""

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
    """A webhook that notes what it is sent."""

    url: str
    messages: list[dict[str, Any]] = field(default_factory=list)

    def told_of(self, text: str) -> dict[str, Any]:
        """Wait for a message with a text in it."""
        return eventually(lambda: next((one for one in self.messages if text in one["body"]), None))


@dataclass
class Installation:
    """What belongs to one home: commands that are run there, and all processes that come of them."""

    environment: dict[str, str]
    log: Path
    """What the piece wrote that was started last."""

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

    def client(self) -> SyncPrefectClient:
        """Return Prefect's own client, which tries again when a busy server asks it to."""
        return SyncPrefectClient(self.environment["PREFECT_API_URL"])

    def run(self, deployment: str, **parameters: Any) -> str:
        """Create a flow run that works on one core, and return its id."""
        with self.client() as client:
            found = client.read_deployment_by_name(deployment)
            parameters = {name: str(value) for name, value in parameters.items()} | {"compute": {"workers": 1}}
            return str(client.create_flow_run_from_deployment(found.id, parameters=parameters).id)

    @contextmanager
    def piece(self, module: str, says: str) -> Iterator[subprocess.Popen[bytes]]:
        """Start a module and wait until it says something; in the end it is told to stop."""
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module],
                env=self.environment,
                cwd=CHECKOUT,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            eventually(lambda: says in self.log.read_text() or process.poll() is not None, 120)
            assert process.poll() is None, self.log.read_text()
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(60)

    def processes(self, words: str = "") -> list[psutil.Process]:
        """Return all processes of this home whose command has some words, whoever their parent is."""
        return [process for process in psutil.process_iter() if self._has(process, words)]

    def _has(self, process: psutil.Process, words: str) -> bool:
        try:
            ours = process.environ().get("HOME") == self.environment["HOME"]
            return ours and words in " ".join(process.cmdline())
        except psutil.Error:
            return False
