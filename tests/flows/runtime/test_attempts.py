"""Shards of stopped workers are begun on other workers, too; the stopped ones do no harm when they go on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pyarrow.parquet as pq
import pytest
from distributed import Client
from harness import Api, Started, darkroom, eventually, family, gone, lasting, manifest_rows, run_id_of, running_cluster

from darkroom.flows.runtime.attempts import STALLED_SECONDS, Attempt, Attempts
from darkroom.flows.runtime.workers import SILENT_SECONDS, Worker, Workers
from darkroom.tasks.dataset.shard import ShardRef
from tests.contents import files

pytestmark = pytest.mark.slow

IMPATIENT = """
from darkroom.flows.cli.commands import main
from darkroom.flows.runtime import attempts, workers
from darkroom.tasks import plan
attempts.STALLED_SECONDS = 3
workers.SILENT_SECONDS = 2
plan.SHARD_SECONDS = (1e-9, 1e9)  # four shards for each worker, however small they are
main()
"""


@pytest.fixture(scope="module")
def undisturbed(api: Api, large_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert darkroom("run", large_folder, out, environment=api.environment).code == 0
    return out


@contextmanager
def two_workers(folder: Path, api: Api) -> Iterator[tuple[str, Client]]:
    """Run a cluster of two workers; provide its address and a client."""
    with (
        running_cluster(folder, api.environment, "--nthreads", "1", "--nworkers", "2") as address,
        Client(address, set_as_default=False) as client,
    ):
        eventually(lambda: len(client.nthreads()) == 2)
        yield address, client


def first_at_work(started: Started, out: Path) -> psutil.Process:
    """Wait until a worker has begun a shard, and return that worker."""

    def begun() -> list[Path]:
        assert started.process.poll() is None, started.process.communicate()
        return list(out.glob(".darkroom/runs/*/begun/*/0*"))

    return psutil.Process(int(eventually(begun)[0].name.split("-")[1]))


def address_of(client: Client, worker: psutil.Process) -> str:
    pids: dict[str, int] = client.run(os.getpid)
    return next(address for address, pid in pids.items() if pid == worker.pid)


def read_until(started: Started, text: str) -> str:
    """Return the lines of a command's errors up to the first with a text."""
    lines = []
    for line in started.process.stderr or []:
        lines.append(line)
        if text in line:
            return "".join(lines)
    raise AssertionError("".join(lines))


def check(out: Path, undisturbed: Path) -> None:
    """Check that a run has the results of an undisturbed one, and each image once in its run file."""
    assert files(out / "images") == files(undisturbed / "images")
    rows, expected = ([lasting(row) for row in manifest_rows(place).values()] for place in (out, undisturbed))
    assert rows == expected
    [run] = out.glob("runs/*.parquet")
    assert sorted(pq.read_table(run)["source_path"].to_pylist()) == sorted(manifest_rows(out))


def executing(client: Client, address: str) -> int:
    """Return how many tasks a worker executes, cancelled ones included."""

    def count(dask_worker: Any) -> int:
        return len(dask_worker.state.executing)

    return client.run(count, workers=[address])[address]


@pytest.mark.parametrize("wakes", ["after the run", "in the middle"])
def test_a_stopped_worker_does_not_hold_up_a_run_and_does_no_harm_when_it_goes_on(
    wakes: str, api: Api, start: Callable[..., Started], large_folder: Path, undisturbed: Path, tmp_path: Path
):
    out = tmp_path / "out"
    with two_workers(tmp_path, api) as (address, client):
        started = start("run", large_folder, out, "--scheduler", address, environment=api.environment, code=IMPATIENT)
        stopped = first_at_work(started, out)
        place = address_of(client, stopped)
        stopped.suspend()
        try:
            errors = read_until(started, "too: worker")
            if wakes == "in the middle":
                stopped.resume()
            printed, more = started.process.communicate(timeout=120)
        finally:
            stopped.resume()

        assert started.process.returncode == 0, errors + more
        assert "200 made, 0 failed" in printed
        assert f"too: worker {place} has sent no heartbeat for " in errors
        eventually(lambda: executing(client, place) == 0)
        check(out, undisturbed)
        assert not list(out.glob(".darkroom/runs/*"))
        again = darkroom("run", large_folder, out, "--scheduler", address, environment=api.environment)
        assert "Nothing to do" in again.out


def test_a_paused_worker_keeps_no_shard_that_it_has_not_begun(
    api: Api, start: Callable[..., Started], large_folder: Path, undisturbed: Path, tmp_path: Path
):
    out = tmp_path / "out"

    def limit_memory(dask_worker: Any) -> None:
        dask_worker.memory_manager.memory_pause_fraction = 1e-6

    with two_workers(tmp_path, api) as (address, client):
        started = start("run", large_folder, out, "--scheduler", address, environment=api.environment, code=IMPATIENT)
        place = address_of(client, first_at_work(started, out))
        client.run(limit_memory, workers=[place])
        printed, errors = started.process.communicate(timeout=120)

    assert started.process.returncode == 0, errors
    assert "200 made, 0 failed" in printed
    assert f"too: worker {place} is paused by Dask, because its memory is nearly used up" in errors
    check(out, undisturbed)


def test_a_stopped_worker_of_a_local_cluster_is_ended_with_the_run(
    api: Api, start: Callable[..., Started], large_folder: Path, undisturbed: Path, tmp_path: Path
):
    out = tmp_path / "out"
    started = start("run", large_folder, out, "--workers", "2", environment=api.environment, code=IMPATIENT)
    stopped = first_at_work(started, out)
    processes = family(started.process)
    stopped.send_signal(signal.SIGSTOP)

    _, errors = started.process.communicate(timeout=120)

    assert started.process.returncode == 0, errors
    assert "is begun on worker" in errors
    check(out, undisturbed)
    eventually(lambda: gone(processes), 10)
    run_id = run_id_of(out)
    # The stopped worker's task run may not have reached the server.
    assert {task["state_type"] for task in api.task_runs(run_id)} <= {"COMPLETED", "CRASHED"}
    assert any("is begun on worker" in line["message"] for line in api.logs(run_id)), "it is in the UI, too"


HERE, THERE = "tcp://127.0.0.1:1", "tcp://127.0.0.1:2"


def attempt(number: int, worker: str | None = HERE, *, seconds: float, begun: bool = True, of: int = 1) -> Attempt:
    """Return an attempt at shard `number` of `of` that has made no progress for `seconds`."""
    shard = ShardRef(destination="/d", run_id="r", number=number, of=9, images=1, attempt=of)
    future: Any = object()
    return Attempt(shard, future, uuid4(), begun, worker, quiet_seconds=seconds)


def under_way(*attempts: Attempt, workers: dict[str, Worker] | None = None) -> Attempts:
    known: Any = workers or {HERE: Worker(threads=1, status="running")}
    found = Attempts(Workers(None, known))  # type: ignore[arg-type] # it is not asked for anything here
    for each in attempts:
        found.add(each)
    return found


def test_a_shard_is_stalled_when_none_of_its_attempts_makes_progress():
    attempts = under_way(
        attempt(0, seconds=STALLED_SECONDS - 1),
        attempt(1, seconds=STALLED_SECONDS),
        attempt(2, seconds=2 * STALLED_SECONDS),
        attempt(2, seconds=1, of=2),
    )
    assert [[each.shard.number for each in stalled] for stalled in attempts.stalled()] == [[1]]


@pytest.mark.parametrize(
    ("stalled", "silent", "limit"),
    [
        (attempt(0, seconds=0), False, 4 * STALLED_SECONDS),
        (attempt(0, seconds=0, begun=False), False, STALLED_SECONDS),
        (attempt(0, seconds=0), True, SILENT_SECONDS),
    ],
)
def test_a_shard_that_was_begun_again_gets_more_time_unless_its_worker_is_silent_or_has_not_begun_it(
    stalled: Attempt, silent: bool, limit: float
):
    worker = Worker(threads=1, status="running", silent_seconds=SILENT_SECONDS if silent else 0)
    attempts = under_way(stalled, workers={HERE: worker})
    attempts.replaced[0] += 1
    stalled.quiet_seconds = limit - 1
    assert not attempts.stalled()
    stalled.quiet_seconds = limit
    assert attempts.stalled() == [[stalled]]


def test_messages_of_attempts_that_have_ended_are_not_progress():
    waiting = attempt(0, seconds=50, begun=False)
    attempts = under_way(waiting)
    message = {"shard": 0, "attempt": 1, "worker": THERE}
    assert not attempts.on_message(message | {"attempt": 2})
    assert (waiting.begun, waiting.quiet_seconds) == (False, 50)
    assert attempts.on_message(message)
    assert (waiting.begun, waiting.quiet_seconds, waiting.worker) == (True, 0, THERE)
    attempts.remove(waiting)
    assert not attempts.on_message(message)


@pytest.mark.parametrize(
    ("stalled", "status", "why", "waited_for"),
    [
        (attempt(0, seconds=50), "running", f"worker {HERE} has made no progress with it for 50 s", True),
        (attempt(0, seconds=50, begun=False), "running", f"worker {HERE} has not begun it for 50 s", False),
        (attempt(0, seconds=50, begun=False), "paused", f"worker {HERE} is paused by Dask", True),
        (attempt(0, None, seconds=50, begun=False), "running", "no worker has it", False),
    ],
)
def test_the_reason_names_the_worker_and_a_shard_that_only_queues_is_not_waited_for(stalled, status, why, waited_for):
    attempts = under_way(stalled, workers={HERE: Worker(threads=1, status=status)})
    assert attempts.why(stalled).startswith(why)
    assert attempts.is_waited_for(stalled) is waited_for
