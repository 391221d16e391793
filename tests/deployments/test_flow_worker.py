"""The worker, on a flow of the user's own that calls Darkroom's."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from harness import clean_environment, eventually, journalled, manifest_rows
from installation import Installation, write_users_folder

from darkroom.tasks.dataset.lease import read_lease
from tests.places import destination_at

FLOW = """
import prefect
import tasks
from darkroom import Compute, Recipe, preprocess

@prefect.flow
def mine(source: str, destination: str, compute: Compute):
    preprocess(source, destination, recipe=Recipe(width=tasks.WIDTH), compute=compute)
"""


@pytest.fixture(scope="module")
def mine(server: Installation, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """Deploy a flow that lies beside the user's own `tasks.py`, `flows/` and `deployments/`."""
    folder = tmp_path_factory.mktemp("mine")
    write_users_folder(folder)
    (folder / "nightly.py").write_text(FLOW)
    mine = replace(server, cwd=folder)
    mine.environment.pop("PYTHONPATH")
    for command in (
        ["work-pool", "create", "darkroom", "--type", "process"],
        ["--no-prompt", "deploy", "nightly.py:mine", "--name", "nightly", "--pool", "darkroom"],
    ):
        done = mine.prefect(*command)
        assert done.code == 0, done.out + done.err
    return mine


@pytest.mark.slow
def test_the_worker_runs_a_flow_beside_folders_named_like_darkrooms(mine: Installation, few: Path, tmp_path: Path):
    with mine.started("darkroom.deployments.flow_worker", until="started!"):
        mine.ended(mine.run("mine/nightly", source=few, destination=tmp_path), "COMPLETED")

    assert {row["width"] for row in manifest_rows(tmp_path).values()} == {32}


def test_ctrl_c_ends_a_worker_whose_server_does_not_answer(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        api = {"PREFECT_API_URL": f"http://127.0.0.1:{silent.getsockname()[1]}/api"}
        command = [sys.executable, "-m", "darkroom.deployments.flow_worker"]
        environment = clean_environment(tmp_path) | api
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as worker:
            silent.settimeout(60)
            connection, _ = silent.accept()
            worker.send_signal(signal.SIGINT)
            _, errors = worker.communicate(timeout=60)
            connection.close()
    assert (worker.returncode, errors) == (0, "")


def test_nothing_of_a_flow_run_that_is_killed_outright_stays_running(mine: Installation, many: Path, tmp_path: Path):
    def task_runs(**state: object) -> list[dict[str, Any]]:
        """Return the task runs of a flow run's subflow, which are in some state."""
        of_subflow = {"flow_runs": {"parent_flow_run_id": {"any_": [run_id]}}}
        return mine.api.post("task_runs/filter", of_subflow | {"task_runs": {"state": state}})

    running = {"type": {"any_": ["PENDING", "RUNNING"]}}
    with mine.started("darkroom.deployments.flow_worker", until="started!"):
        run_id = mine.run("mine/nightly", source=many, destination=tmp_path)
        [resizing, *_] = eventually(lambda: [task for task in task_runs(**running) if "resize" in task["name"]])
        [process] = mine.processes("prefect.engine")
        process.kill()
        mine.ended(run_id, "CRASHED", 60)

        eventually(lambda: not task_runs(**running), 60)
        eventually(lambda: {task["state_type"] for task in mine.api.task_runs(run_id)} == {"CRASHED"}, 60)

    [marked] = [task for task in task_runs() if task["id"] == resizing["id"]]
    assert marked["state"]["message"] == "The process of its flow run was killed."
    assert mine.api.flow_run(resizing["flow_run_id"])["state_type"] == "CRASHED"
    assert "was killed: its task runs are marked as Crashed." in mine.log.read_text()


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_the_worker_stops_its_flow_runs_before_itself(
    number: signal.Signals, mine: Installation, many: Path, tmp_path: Path
):
    with mine.started("darkroom.deployments.flow_worker", until="started!") as worker:
        run_id = mine.run("mine/nightly", source=many, destination=tmp_path)
        eventually(lambda: journalled(tmp_path))

        worker.send_signal(number)

        worker.wait(60)
    assert "Stopping 1 flow run; what is finished is kept." in mine.log.read_text()
    mine.ended(run_id, "CRASHED", 10)
    assert read_lease(destination_at(tmp_path)) is None
    assert journalled(tmp_path)
    assert mine.processes("prefect worker start") == mine.processes("prefect.engine") == []
