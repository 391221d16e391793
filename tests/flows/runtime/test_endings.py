"""How tasks on a real cluster end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from distributed import Client
from harness import clean_environment, eventually, running_cluster

from darkroom.flows.runtime import endings
from darkroom.flows.runtime.endings import fetch_end, wait_for_any, why_not_run


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with (
        running_cluster(tmp_path, clean_environment(tmp_path)) as address,
        Client(address, set_as_default=False) as client,
    ):
        yield client


def test_a_task_ends_with_its_result_or_its_exception(client: Client):
    ended, failed = client.submit(os.getcwd), client.submit(os.stat, "/no such file")
    found: set[object] = set()
    eventually(lambda: found.update(wait_for_any(client, [ended, failed])) or found == {ended, failed})
    assert isinstance(fetch_end(ended), str)
    assert isinstance(fetch_end(failed), FileNotFoundError)


def test_a_result_on_a_worker_that_does_not_answer_is_fetched_later(client: Client, monkeypatch: pytest.MonkeyPatch):
    ended = client.submit(os.getpid)
    eventually(ended.done)
    [pid] = client.run(os.getpid).values()
    process = psutil.Process(pid)
    process.suspend()
    monkeypatch.setattr(endings, "FETCH_SECONDS", 0.5)
    try:
        assert fetch_end(ended) is None
    finally:
        process.resume()
    assert eventually(lambda: fetch_end(ended)) == pid


def test_without_tasks_a_tick_passes(client: Client, monkeypatch: pytest.MonkeyPatch):
    waited: list[float] = []
    monkeypatch.setattr(endings.time, "sleep", waited.append)
    assert wait_for_any(client, []) == []
    assert waited == [endings.TICK_SECONDS]


def test_the_reason_why_a_task_could_not_run_has_a_remedy():
    assert "Install the same Darkroom" in why_not_run(ModuleNotFoundError("No module named 'darkroom'"))
    assert "could not run the task (RuntimeError: out of the blue)" in why_not_run(RuntimeError("out of the blue"))
