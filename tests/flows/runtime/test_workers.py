"""Which workers of a real cluster take shards."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from distributed import Client
from harness import clean_environment, eventually, running_cluster

from darkroom.flows.runtime import workers as workers_module
from darkroom.flows.runtime.workers import SILENT_SECONDS, Worker, Workers, count_threads
from darkroom.tasks.errors import ClusterError


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Provide a client of a cluster of two workers, one with two threads."""
    folder = tmp_path_factory.mktemp("cluster")
    with (
        running_cluster(folder, clean_environment(folder), "--nthreads", "2", "--nworkers", "2") as address,
        Client(address, set_as_default=False) as client,
    ):
        eventually(lambda: len(client.nthreads()) == 2)
        yield client


@pytest.fixture
def workers(client: Client, monkeypatch: pytest.MonkeyPatch) -> Workers:
    monkeypatch.setattr(workers_module, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(workers_module, "SILENT_SECONDS", 2.0)
    found = Workers(client)
    found.poll()
    assert (found.threads, count_threads(client), found.allowed()) == (4, 4, None)
    return found


def problem_of(workers: Workers, address: str) -> str:
    workers.poll()
    return workers.problem_of(address)


def test_a_paused_worker_is_not_counted_until_it_goes_on(client: Client, workers: Workers):
    def set_pause(fraction: float, dask_worker: Any) -> None:
        dask_worker.memory_manager.memory_pause_fraction = fraction

    paused, other = workers.known
    client.run(set_pause, 1e-6, workers=[paused])
    assert eventually(lambda: problem_of(workers, paused)).startswith("is paused by Dask")
    assert (workers.threads, count_threads(client)) == (2, 2)
    assert workers.take_idle([]) == other
    client.run(set_pause, 0.99, workers=[paused])
    eventually(lambda: not problem_of(workers, paused))
    assert workers.threads == 4


def test_a_stopped_worker_is_not_counted_until_it_goes_on(client: Client, workers: Workers):
    stopped, other = workers.known
    process = psutil.Process(client.run(os.getpid, workers=[stopped])[stopped])
    process.suspend()
    try:
        assert eventually(lambda: problem_of(workers, stopped)).startswith("has sent no heartbeat for 2 s")
        assert (workers.threads, workers.allowed(), workers.is_silent(stopped)) == (2, [other], True)
        assert [workers.take_idle([]) for _ in range(3)] == [other, other, None], "one for each thread"
    finally:
        process.resume()
    eventually(lambda: not problem_of(workers, stopped))
    assert (workers.threads, workers.allowed(), workers.is_silent(stopped)) == (4, None, False)
    assert workers.take_idle([stopped]) == other


def test_tasks_are_found_where_dask_has_put_them(client: Client, workers: Workers):
    place = list(workers.known)[1]
    released = client.submit(os.getcwd, workers=[place])

    def wait() -> None:
        time.sleep(60)

    future = client.submit(wait, workers=[place])
    eventually(lambda: problem_of(workers, place) == "" and workers.address_of(future.key))
    assert workers.address_of(future.key) == place
    assert workers.address_of("another") is None
    released.result()
    client.cancel([future], force=True)


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({}, "has had no worker for 0 seconds. Start workers"),
        (
            {"tcp://a:1": Worker(threads=2, status="paused"), "tcp://b:1": Worker(threads=2, status="paused")},
            "that takes shards: worker tcp://a:1 is paused by Dask, because its memory .*, and 1 more take none either",
        ),
    ],
)
def test_a_run_reports_its_wait_for_workers_before_it_fails(
    known: dict[str, Worker], message: str, monkeypatch: pytest.MonkeyPatch
):
    workers = Workers(None, known)  # type: ignore[arg-type] # it is not asked for anything here
    assert workers.check(progressed_at=time.monotonic()) == ""
    long_ago = workers._seen_at = time.monotonic() - SILENT_SECONDS - 1
    assert workers.check(progressed_at=long_ago).startswith("Waiting for a worker: ")
    assert workers.check(progressed_at=long_ago) == "", "once is enough"
    monkeypatch.setattr(workers_module, "NO_WORKER_SECONDS", 0)
    with pytest.raises(ClusterError, match=message):
        workers.check(progressed_at=long_ago)
    workers.known["tcp://c:1"] = Worker(threads=1, status="running")
    workers.check(progressed_at=long_ago)
