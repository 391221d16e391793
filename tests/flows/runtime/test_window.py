"""The limits of the window of shards, with workers that really die."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import Api

from darkroom.flows.runtime.window import MAX_FRUITLESS_ATTEMPTS
from tests.flows.runtime.deadly import KINDS, read_outcomes


@dataclass(frozen=True)
class Deadly:
    """The results of `tests.flows.runtime.deadly`."""

    folder: Path
    task_runs: list[dict[str, str]]

    def outcomes(self, window: str) -> dict[str, str]:
        return read_outcomes(self.folder / window)

    def worked(self, window: str) -> Counter[str]:
        """Return how often workers began each attempt at each shard of a window."""
        path = self.folder / window / "worked"
        return Counter(path.read_text().splitlines() if path.exists() else [])

    def attempts(self, window: str, kind: str) -> Counter[int]:
        """Return how often workers began each attempt at the shards of a kind."""
        worked = [line.split() for line in self.worked(window).elements()]
        return Counter(int(attempt) for number, attempt in worked if KINDS[int(number)] == kind)

    def states(self, kind: str) -> dict[str, str]:
        """Return the states of the task runs of a kind's shard, by attempt."""
        shard = f"shard {KINDS.index(kind) + 1} of {len(KINDS)} (1 image)"
        named = {task["name"]: task["state_type"] for task in self.task_runs}
        return {name.removeprefix(shard).strip(): state for name, state in named.items() if name.startswith(shard)}


@pytest.fixture(scope="module")
def ran(api: Api, tmp_path_factory: pytest.TempPathFactory) -> Deadly:
    folder = tmp_path_factory.mktemp("deadly")
    command = [sys.executable, "-m", "tests.flows.runtime.deadly", folder]
    done = subprocess.run(
        command, env=api.environment, cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    [run] = api.post("flow_runs/filter", {"flow_runs": {"name": {"any_": ["deadly"]}}, "sort": "START_TIME_DESC"})
    return Deadly(folder, api.task_runs(run["id"]))


def test_a_shard_that_loses_three_workers_in_a_row_is_given_up_with_its_reason(ran: Deadly):
    assert "its workers were lost, most often for lack of memory" in ran.outcomes("mixed")[str(KINDS.index("killed"))]
    assert ran.attempts("mixed", "killed") == {1: 1, 2: 1, MAX_FRUITLESS_ATTEMPTS: 1}
    crashed = ran.states("killed")
    assert crashed.pop("attempt 2") == crashed.pop("attempt 3") == "CRASHED"
    assert set(crashed.values()) <= {"CRASHED"}


def test_all_other_shards_are_done(ran: Deadly):
    assert {number for number, outcome in ran.outcomes("mixed").items() if outcome == "done"} == {
        str(number) for number, kind in enumerate(KINDS) if kind != "killed"
    }
    named = {task["name"]: task["state_type"] for task in ran.task_runs if f"of {len(KINDS)} " in task["name"]}
    assert set(named.values()) == {"COMPLETED", "CRASHED"}


def test_shards_that_a_dead_worker_had_done_or_queued_are_processed_once(ran: Deadly):
    assert ran.attempts("mixed", "fine") == {1: KINDS.count("fine")}
    assert ran.attempts("mixed", "killed once") == {1: 1, 2: 1}


def test_a_shard_that_is_cancelled_on_the_cluster_gets_another_attempt(ran: Deadly):
    assert ran.attempts("mixed", "restarted once") == {1: 1, 2: 1}
    assert ran.states("restarted once") == {"": "CRASHED", "attempt 2": "COMPLETED"}


def test_a_shard_that_keeps_being_lost_unbegun_is_given_up(ran: Deadly):
    """The limits of `deadly` are one such loss and one attempt."""
    assert ran.worked("unbegun") == {"0 1": 2}
    assert "its workers were lost" in ran.outcomes("unbegun")["0"]


def test_an_error_around_a_task_is_the_reason_of_the_failure(ran: Deadly):
    assert "a worker could not run the task (RuntimeError: out of the blue)" in ran.outcomes("unrunnable")["0"]
