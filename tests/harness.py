"""Helpers for tests of whole runs: the real command, the real API, real images."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import prefect
import psutil
import pyarrow.parquet as pq
from PIL import Image
from prefect.client.base import PrefectHttpxSyncClient

from darkroom.tasks.reporting.artifacts import artifact_key

DARKROOM = [sys.executable, "-m", "darkroom.flows.cli.commands"]
CHECKOUT = Path(__file__).parents[1]

NO_OTHER_SERVER = {"PREFECT_SERVER_API_PORT": "9"}
"""A port without a server, so that runs don't use a server that happens to run on this machine."""

VOLATILE = {"run_id", "shard", "worker", "processed_at", "read_ms", "decode_ms", "resize_ms", "encode_ms", "write_ms"}
"""Columns of a manifest that differ between any two runs."""


@dataclass(frozen=True)
class Api:
    """A running Prefect server."""

    url: str
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        return clean_environment(self.home) | {"PREFECT_API_URL": self.url}

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Send a request as Prefect's own clients do: they retry on 503, the sign of a busy database."""
        with PrefectHttpxSyncClient(base_url=self.url, timeout=30, trust_env=False) as client:
            return client.post(f"/{path}", json=body).raise_for_status().json()

    def flow_run(self, run_id: str) -> dict[str, Any]:
        [found] = self.post("flow_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}})
        return found

    def task_runs(self, run_id: str) -> list[dict[str, Any]]:
        return self.post(
            "task_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}, "sort": "EXPECTED_START_TIME_ASC"}
        )

    def logs(self, run_id: str) -> list[dict[str, Any]]:
        return self.post("logs/filter", {"logs": {"flow_run_id": {"any_": [run_id]}}})

    def artifacts(self, run_id: str) -> list[dict[str, Any]]:
        return self.post("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run_id]}}, "sort": "KEY_ASC"})

    def latest_summary(self, destination: Path | str) -> str:
        """Return the newest summary of a destination, as on the Artifacts page."""
        key = artifact_key(str(destination), "summary")
        [latest] = self.post("artifacts/latest/filter", {"artifacts": {"key": {"any_": [key]}}})
        return latest["data"]


def refused(api_url: str) -> list[int]:
    """Create flow runs in eight threads at a time; return the HTTP status of each request that was refused."""
    with httpx.Client(base_url=api_url, timeout=90, trust_env=False) as client, ThreadPoolExecutor(8) as threads:
        flow = {"flow_id": client.post("flows/", json={"name": "busy"}).raise_for_status().json()["id"]}
        answers = threads.map(
            lambda _: client.post("flow_runs/", json=flow | {"state": {"type": "PENDING"}}), range(40)
        )
        return [answer.status_code for answer in answers if answer.is_error]


def clean_environment(home: Path, *, is_empty: bool = False) -> dict[str, str]:
    """Return the environment of a user who has just installed Darkroom and has no server.

    Args:
        home: the user's home.
        is_empty: leave it empty; otherwise Prefect's database is there, which takes 6 s of processor time to create.
    """
    if not is_empty and not (home / ".prefect").exists():
        (home / ".prefect").mkdir()
        shutil.copy(_new_database(), home / ".prefect" / "prefect.db")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT", "DASK", "DARKROOM", "MAKE", "ARGS"))
    }
    return kept | {
        "HOME": str(home),
        "PREFECT_HOME": str(home / ".prefect"),
        "PYTHONPATH": str(CHECKOUT),
        **NO_OTHER_SERVER,
    }


def _new_database() -> Path:
    """Return an empty database of Prefect's, created by the first process of the first test session."""
    path = CHECKOUT / ".pytest_cache" / f"prefect-{prefect.__version__}.db"
    path.parent.mkdir(exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock, tempfile.TemporaryDirectory() as folder:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
            subprocess.run(command, env={**os.environ, "PREFECT_HOME": folder}, stdout=subprocess.DEVNULL, check=True)
            with closing(sqlite3.connect(f"{folder}/prefect.db")) as database:
                database.execute("VACUUM INTO ?", [f"{path}.unfinished"])
            Path(f"{path}.unfinished").rename(path)
    return path


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str


def darkroom(*arguments: str | Path, environment: dict[str, str], seconds: float = 300) -> Ended:
    """Run the command, and wait until it has ended."""
    done = subprocess.run(
        [*DARKROOM, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds,
        cwd=environment["HOME"],
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@contextmanager
def running_cluster(
    folder: Path, environment: dict[str, str], *worker_options: str, protocol: str = "tcp"
) -> Iterator[str]:
    """Run a Dask scheduler and a worker with Dask's defaults; provide the scheduler's address."""
    address_file = folder / "scheduler.json"
    shared = ["--protocol", protocol, "--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(address_file)]
    commands = [
        ["dask_scheduler", *shared, "--port", "0"],
        ["dask_worker", *shared, *(worker_options or ("--nthreads", "1"))],
    ]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.{program}", *options],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for program, *options in commands
    ]
    try:
        eventually(lambda: address_file.exists() and address_file.read_text().rstrip().endswith("}"))
        yield json.loads(address_file.read_text())["address"]
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait()


@dataclass
class Started:
    """A running command, in a process group of its own."""

    process: subprocess.Popen[str]

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to the whole group, as a terminal does."""
        os.killpg(self.process.pid, number)


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return a process and all its descendants."""
    parent = psutil.Process(process.pid)
    return [parent, *parent.children(recursive=True)]


def workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the Dask workers of a run: the processes that its fork server has forked."""
    for child in psutil.Process(process.pid).children():
        if any("multiprocessing.forkserver" in word for word in child.cmdline()):
            return [forked for forked in child.children() if forked.cmdline() == child.cmdline()]
    return []


def has_begun(started: Started) -> bool:
    """Return whether a worker has begun a shard (only then is there a codec process), or the command has ended."""
    return bool(codec_processes(started)) or started.process.poll() is not None


def codec_processes(started: Started) -> list[psutil.Process]:
    """Return the codec processes of a command: those with the command line of their parent."""
    found = []
    for process in family(started.process):
        with suppress(psutil.Error):  # it has just ended
            if (
                "darkroom.tasks.worker.codec_server" in process.cmdline()
                and process.parent().cmdline() == process.cmdline()
            ):
                found.append(process)
    return found


def stopped_within_a_shard(worker: psutil.Process, destination: Path, api: Api) -> bool:
    """Suspend a worker; if it processes no shard whose task run is Running in Prefect, resume it and return False."""
    worker.suspend()
    [journal] = destination.glob(".darkroom/*/*/journal")
    ended = tuple(f"shard {int(part.name[:6]) + 1} of" for part in journal.glob("0*.parquet"))
    running = [task["name"] for task in api.task_runs(journal.parent.name) if task["state_type"] == "RUNNING"]
    shards = [name.partition(" ")[2] for name in running if " shard " in name]
    if any(not shard.startswith(ended or "none") for shard in shards):
        return True
    worker.resume()
    return False


def check_done_again(api: Api, run_id: str) -> None:
    """Check that a single task run of a flow run crashed, and that another completed the same shard."""
    # The names are equal if the worker died before the flow received its first progress message about the shard.
    states = [(task["name"], task["state_type"]) for task in api.task_runs(run_id)]
    [crashed] = [name for name, state in states if state != "COMPLETED"]
    assert (crashed, "CRASHED") in states
    assert {(crashed, "COMPLETED"), (f"{crashed} attempt 2", "COMPLETED")}.intersection(states)


def gone(processes: list[psutil.Process]) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


def at_work(started: Started, out: Path, parts: int = 1) -> list[psutil.Process]:
    """Wait until a run has journalled something, and return its processes."""
    eventually(lambda: started.process.poll() is not None or len(journalled(out)) >= parts)
    assert started.process.poll() is None, started.process.communicate()
    return family(started.process)


def manifest_rows(destination: Path) -> dict[str, dict[str, Any]]:
    """Return a manifest's rows by source path, and check that no path occurs twice."""
    rows = pq.read_table(destination / "manifest.parquet").to_pylist()
    by_path = {row["source_path"]: row for row in rows}
    assert len(by_path) == len(rows)
    return by_path


def lasting(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row without its `VOLATILE` columns."""
    return {name: value for name, value in row.items() if name not in VOLATILE}


def journalled(destination: Path) -> list[Path]:
    """Return the journal parts of runs that have not ended."""
    return list(destination.glob(".darkroom/runs/*/journal/*.parquet"))


def run_id_of(destination: Path) -> str:
    """Return the run that published the manifest."""
    return pq.read_metadata(destination / "manifest.parquet").metadata[b"run_id"].decode()


def save(path: Path, pixels: np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def check_images(destination: Path) -> None:
    """Check that all outputs of a destination can be decoded completely."""
    for path in destination.glob("images/**/*"):
        if path.is_file():
            with Image.open(path) as image:
                image.load()


def eventually(condition: Callable[[], Any], seconds: float = 180) -> Any:
    """Wait until a condition returns something true, and return that."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if met := condition():
            return met
        time.sleep(0.05)
    raise AssertionError(f"the condition was not met within {seconds} s")
