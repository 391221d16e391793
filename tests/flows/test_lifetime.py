"""However a run ends, it ends its servers, workers, sockets and leases."""

from __future__ import annotations

import re
import signal
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from harness import (
    Api,
    Started,
    at_work,
    clean_environment,
    darkroom,
    eventually,
    gone,
    journalled,
    manifest_rows,
    workers,
)

from darkroom.flows.runtime.local_server import LocalServer
from darkroom.tasks.dataset.lease import read_lease
from tests.places import destination_at


def servers(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [
        process for process in processes if {"darkroom.flows.runtime.local_server", "uvicorn"} & set(process.cmdline())
    ]


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Provide a temporary folder with a name short enough for sockets in it."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def left_in(temporary: Path) -> set[str]:
    """Return the temporary files that are left, except Dask's locks, which its next start reuses or removes."""
    left = {str(path.relative_to(temporary)) for path in temporary.rglob("*")}
    return {
        path
        for path in left
        if not re.fullmatch(r"dask-scratch-space(/(global|purge)\.lock|/worker-\w+\.dirlock)?", path)
    }


def test_a_run_without_a_server_starts_one_keeps_its_history_and_leaves_nothing(
    start: Callable[..., Started], large_folder: Path, temporary: Path, tmp_path: Path
):
    out = tmp_path / "out"
    started = start("run", large_folder, out, environment=clean_environment(tmp_path) | {"TMPDIR": str(temporary)})
    processes = at_work(started, out)

    assert len(servers(processes)) == 1, "one server, for the flow and all its workers"
    listening = [socket for process in processes for socket in process.net_connections() if socket.status == "LISTEN"]
    assert listening
    assert {socket.laddr.ip for socket in listening} == {"127.0.0.1"}
    for worker in workers(started.process):
        assert worker.environ()["OMP_NUM_THREADS"] == "1"

    printed, errors = started.process.communicate(timeout=120)
    assert started.process.returncode == 0, errors
    assert "200 made, 0 failed" in printed
    progress = re.findall(r"^(\d+) of 200 images, [\d.]+/s, 0 failed(, \d+:\d\d left)?$", errors, re.MULTILINE)
    assert progress, "plain lines"
    assert all(left for done, left in progress if int(done)), "the time left is shown once it can be estimated"
    assert errors.startswith("darkroom: Starting a local Prefect server and the workers.\n")
    assert "telemetry" not in errors
    assert re.search(r"^page +'\S*prefect server start' shows it at http://127\.0\.0\.1:4200$", printed, re.MULTILINE)
    assert "Traceback" not in errors
    eventually(lambda: gone(processes), 10)
    assert not left_in(temporary)
    assert read_lease(destination_at(out)) is None
    with sqlite3.connect(tmp_path / ".prefect/prefect.db") as history:
        assert history.execute("SELECT state_type FROM flow_run").fetchall() == [("COMPLETED",)]
        states = [state for (state,) in history.execute("SELECT state_type FROM task_run")]
        assert states == ["COMPLETED"] * len(states)
        assert states
    history.close()


@pytest.mark.parametrize(
    ("with_server", "number", "code"),
    [
        (False, signal.SIGINT, 130),
        (True, signal.SIGTERM, 143),
        pytest.param(False, signal.SIGTERM, 143, marks=pytest.mark.slow),
        pytest.param(True, signal.SIGINT, 130, marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_leaves_its_journal_and_nothing_else(
    number: signal.Signals,
    code: int,
    with_server: bool,
    api: Api,
    start: Callable[..., Started],
    large_folder: Path,
    temporary: Path,
    tmp_path: Path,
):
    out = tmp_path / "out"
    environment = (api.environment if with_server else clean_environment(tmp_path)) | {"TMPDIR": str(temporary)}
    started = start("run", large_folder, out, environment=environment)
    processes = at_work(started, out)

    started.signal_all(number) if number == signal.SIGINT else started.process.send_signal(number)

    _, errors = started.process.communicate(timeout=30)
    assert started.process.returncode == code, errors
    assert "the same command goes on from there" in errors
    assert ("darkroom: Ending. Ctrl-C again ends it at once.\n" in errors) == (number == signal.SIGINT)
    assert "Traceback" not in errors
    eventually(lambda: gone(processes), 10)
    assert not left_in(temporary)
    assert read_lease(destination_at(out)) is None
    assert journalled(out)
    [run_id] = [path.parent.name for path in out.glob(".darkroom/runs/*/journal")]
    states = {task["state_type"] for task in api.task_runs(run_id)} if with_server else stored_task_states(tmp_path)
    assert states
    assert states <= {"COMPLETED", "CANCELLED"}, "none is Running for ever, and nothing has crashed"
    kept = sum(pq.read_metadata(part).num_rows for part in journalled(out))
    message = f"Stopped: {kept:,} of 200 images are finished and kept. The next run, or a retry of this one, goes on"
    if with_server:
        run = api.flow_run(run_id)
        assert (run["state_type"], run["state_name"]) == ("CANCELLED", "Stopped")
        assert run["state"]["message"].startswith(message)
        assert api.latest_summary(out).startswith(f"# {message.partition('. ')[0]}.")


def stored_task_states(home: Path) -> set[str]:
    """Return the states of all task runs in the database of a run's own server."""
    with closing(sqlite3.connect(home / ".prefect/prefect.db")) as history:
        return {state for (state,) in history.execute("SELECT state_type FROM task_run")}


@pytest.mark.parametrize("with_server", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_second_interrupt_does_not_wait_and_loses_nothing(
    with_server: bool, api: Api, start: Callable[..., Started], large_folder: Path, tmp_path: Path
):
    out = tmp_path / "out"
    environment = api.environment if with_server else clean_environment(tmp_path)
    started = start("run", large_folder, out, environment=environment)
    processes = at_work(started, out)

    started.signal_all(signal.SIGINT)
    time.sleep(0.3)  # longer than an echo, which would not count as the second
    started.signal_all(signal.SIGINT)

    _, errors = started.process.communicate(timeout=30)
    assert started.process.returncode == 130, errors
    printed = {line for line in errors.splitlines() if not re.match(r"\d+ of 200 images", line)}
    assert printed
    assert printed <= {
        "darkroom: Ending. Ctrl-C again ends it at once.",
        "darkroom: Interrupted. What is finished is kept: the same command goes on from there.",
        "darkroom: Interrupted again, and ended at once. The same command can be given again.",
        "darkroom: Waiting for the local Prefect server to start.",  # on a busy machine
        f"darkroom: {'Connecting to the configured' if with_server else 'Starting a local'} Prefect server"
        f"{'.' if with_server else ' and the workers.'}",
    }
    eventually(lambda: gone(processes), 30)
    assert journalled(out)


def test_a_server_that_is_lost_costs_no_work(
    start: Callable[..., Started], api: Api, large_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out, environment = tmp_path / "out", clean_environment(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    others = set(psutil.Process().children())
    server = LocalServer()
    server.wait_until_healthy()
    [lost] = servers([process for process in psutil.Process().children() if process not in others])
    # Fewer retries than Prefect's default, which take minutes.
    mine = environment | {"PREFECT_API_URL": server.api_url, "PREFECT_CLIENT_MAX_RETRIES": "0"}
    started = start("run", large_folder, out, environment=mine)
    processes = at_work(started, out)

    for process in [*lost.children(recursive=True), lost]:
        process.kill()

    _, errors = started.process.communicate(timeout=120)
    assert started.process.returncode == 1
    assert "darkroom: The Prefect server was lost" in errors
    assert "Traceback" not in errors
    assert len(manifest_rows(out)) == 200
    eventually(lambda: gone(processes), 10)
    server.stop()
    again = darkroom("run", large_folder, out, environment=api.environment)
    assert "Nothing to do" in again.out


@pytest.mark.slow
def test_a_run_that_raises_leaves_nothing_behind(
    api: Api, start: Callable[..., Started], large_folder: Path, tmp_path: Path
):
    script = """
import sys
import darkroom.flows.preprocess

def raise_in_the_middle(*arguments, **options):
    raise RuntimeError("out of the blue")

if __name__ == "__main__":
    darkroom.flows.preprocess.publish = raise_in_the_middle
    darkroom.flows.preprocess.preprocess(sys.argv[1], sys.argv[2])
"""
    out = tmp_path / "out"
    started = start(large_folder, out, environment=api.environment, code=script)
    processes = at_work(started, out)

    _, errors = started.process.communicate(timeout=120)

    assert started.process.returncode == 1
    assert "RuntimeError: out of the blue" in errors
    eventually(lambda: gone(processes), 10)
    assert read_lease(destination_at(out)) is None
    assert journalled(out), "what was finished is for the next run to adopt"


def test_a_second_run_names_the_lease_holder(
    api: Api, start: Callable[..., Started], large_folder: Path, tmp_path: Path
):
    out = tmp_path / "out"
    started = start("run", large_folder, out, environment=api.environment)
    at_work(started, out)
    started.process.send_signal(signal.SIGSTOP)  # so that it does not end before the second asks

    second = darkroom("run", large_folder, out, environment=api.environment)

    started.process.send_signal(signal.SIGCONT)
    assert second.code == 1
    assert re.search(rf"in use by run [0-9a-f-]+ on \S+ \(process {started.process.pid}\) since 20", second.err)
    cancelled = api.post("flow_runs/filter", {"flow_runs": {"state": {"name": {"any_": ["Cancelled"]}}}})
    [overlapping] = [run for run in cancelled if run["parameters"]["destination"] == str(out)]
    assert overlapping["state"]["message"] in second.err
    assert not api.artifacts(overlapping["id"]), "the destination's summaries are for the run that is at work"
    _, errors = started.process.communicate(timeout=120)
    assert started.process.returncode == 0, errors
