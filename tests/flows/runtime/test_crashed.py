"""Runs whose processes died are Crashed in Prefect."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from harness import Api
from prefect.settings import PREFECT_API_URL, temporary_settings

from darkroom.flows.runtime import crashed
from darkroom.flows.runtime.crashed import mark_crashed, mark_dead_runs, mark_left_task_runs
from darkroom.tasks.dataset.lease import hold_lease
from tests.flows.conftest import running_api
from tests.places import OnDisk
from tests.tasks.helpers import make_job, open_workspace


@pytest.fixture
def own_api(tmp_path: Path) -> Iterator[Api]:
    """Provide a server that leaves the task runs of cancelled runs alone; any other ends them after a while."""
    with running_api(tmp_path, PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_ENABLED="false") as api:
        yield api


def flow_run(api: Api, name: str, state: str) -> str:
    flow = api.post("flows/", {"name": "crashing"})
    return api.post("flow_runs/", {"flow_id": flow["id"], "name": name, "state": {"type": state}})["id"]


@pytest.mark.parametrize(("state", "after"), [("RUNNING", "CRASHED"), ("FAILED", "FAILED")])
def test_a_run_that_died_and_all_its_task_runs_are_marked(
    api: Api, place: OnDisk, state: str, after: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(crashed, "PAGE", 2)
    dead, alive = flow_run(api, "dead", state), flow_run(api, "alive", "RUNNING")
    for number in range(3):
        task_run = {"task_key": "work", "dynamic_key": str(number), "state": {"type": "RUNNING"}}
        api.post("task_runs/", task_run | {"flow_run_id": dead})
    open_workspace(place, make_job(place, run_id=dead))
    with temporary_settings({PREFECT_API_URL: api.url}), hold_lease(place, alive) as lease:
        mark_dead_runs(place, lease)
    assert api.flow_run(dead)["state_type"] == after
    assert api.flow_run(alive)["state_type"] == "RUNNING"
    left = {"flow_runs": {"id": {"any_": [dead]}}, "task_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}
    assert api.post("task_runs/filter", left) == []
    message = api.task_runs(dead)[0]["state"]["message"]
    assert message == f"Its process died. Flow run {alive} has taken over its work."


def test_a_task_run_that_the_server_does_not_know_yet_is_marked_later(api: Api):
    early, known = uuid4(), uuid4()
    task_run = {"task_key": "work", "dynamic_key": "0", "state": {"type": "RUNNING"}}
    api.post("task_runs/", task_run | {"id": str(known)})
    lost = [(early, "its worker was lost"), (known, "so was its")]
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert mark_crashed(lost) == lost
    with temporary_settings({PREFECT_API_URL: api.url}):
        assert mark_crashed(lost) == lost[:1]
        api.post("task_runs/", task_run | {"id": str(early), "dynamic_key": "1"})
        assert mark_crashed(lost[:1]) == []
    runs = api.post("task_runs/filter", {"task_runs": {"id": {"any_": [str(early), str(known)]}}})
    assert {run["id"]: (run["state_type"], run["state"]["message"]) for run in runs} == {
        str(task_run_id): ("CRASHED", message) for task_run_id, message in lost
    }


def flow_run_in(api: Api, pool: str, state: str, **options: str) -> str:
    """Create a flow run of a work pool that left a running task run."""
    flow = api.post("flows/", {"name": "crashing"})
    pools = {found["name"] for found in api.post("work_pools/filter", {})}
    if pool not in pools:
        api.post("work_pools/", {"name": pool, "type": "process"})
    wanted = {"flow_id": flow["id"], "state": {"type": state}, "work_pool_name": pool} | options
    run_id: str = api.post("flow_runs/", wanted)["id"]
    task_run = {"task_key": "work", "dynamic_key": "0", "state": {"type": "RUNNING"}}
    api.post("task_runs/", task_run | {"flow_run_id": run_id})
    return run_id


def states_of(api: Api, run_id: str) -> set[str]:
    return {task["state_type"] for task in api.task_runs(run_id)}


def test_only_task_runs_of_a_work_pools_killed_runs_are_marked(own_api: Api):
    killed, cancelled = (flow_run_in(own_api, "mine", state) for state in ("CRASHED", "CANCELLED"))
    others = [flow_run_in(own_api, "mine", "RUNNING"), flow_run_in(own_api, "of-others", "CRASHED")]
    with temporary_settings({PREFECT_API_URL: own_api.url}):
        assert len(mark_left_task_runs("mine")) == 2
        assert [states_of(own_api, run_id) for run_id in (killed, cancelled)] == [{"CRASHED"}] * 2
        assert [states_of(own_api, run_id) for run_id in others] == [{"RUNNING"}] * 2
        assert mark_left_task_runs("mine") == []
        assert mark_left_task_runs("no-such-pool") == []
