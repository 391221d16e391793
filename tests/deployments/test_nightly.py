"""The deployments as people use them: a real server, a real worker, one stack for all tests of this module.

The tests share what is slow. A run whose processes are killed before the first test is looked at in the last but
one: its heartbeats must be missed for a while.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from conftest import Receiver, Stack, started_stack
from harness import Api, eventually, manifest_rows
from PIL import Image

from deployments.automations import NOTIFICATION, ZOMBIES
from tasks.destination import Destination
from tasks.lease import read_lease

ONE_WORKER = 'compute={"workers": 1}'


def run(stack: Stack, deployment: str, *arguments: str) -> str:
    """Create a flow run and return its id."""
    created = stack.prefect("deployment", "run", deployment, "-p", ONE_WORKER, *arguments)
    assert created.code == 0, created.err
    return created.out.split("UUID: ")[1].split()[0]


def journalled(out: Path) -> list[Path]:
    return list(out.glob(".darkroom/runs/*/journal/*.parquet"))


def ended(api: Api, run_id: str, state: str) -> dict[str, Any]:
    """Wait until a flow run has ended, which must be in a state, and return it."""
    ends = {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}
    eventually(lambda: api.flow_run(run_id)["state_type"] in ends, 180)
    flow_run = api.flow_run(run_id)
    assert flow_run["state_type"] == state, flow_run["state"]
    return flow_run


def deployments(api: Api) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in api.post("deployments/filter", {})}


def automations(api: Api) -> dict[str, dict[str, Any]]:
    found = api.post("automations/filter", {})
    assert len({one["name"] for one in found}) == len(found)
    return {one["name"]: one for one in found}


def every_image_is_whole(out: Path) -> None:
    """Check that below `images/` there is nothing but whole images, and one for each row."""
    names = {row["file_name"] for row in manifest_rows(out).values()}
    assert {str(path.relative_to(out)) for path in out.glob("images/**/*") if path.is_file()} == names
    for name in names:
        with Image.open(out / name) as image:
            image.load()


@pytest.fixture(scope="module")
def killed(environment: dict[str, str], many: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A flow run in whose middle its own process and its worker's are killed; and its destination."""
    out = tmp_path_factory.mktemp("killed") / "out"
    log = out.with_name("stack.log")
    with started_stack(environment, log) as stack:
        run_id = run(stack, "preprocess/thumbnails", "-p", f"source={many}", "-p", f"destination={out}")
        eventually(lambda: journalled(out))
        for module in ("prefect worker start", "prefect.engine"):
            [process] = stack.running(module)
            process.kill()
        assert stack.process.wait(60) == 1, "without its worker, a stack stops the rest"
        assert "The worker ended" in log.read_text()
        eventually(lambda: not stack.processes(), 10)
    return run_id, out


@pytest.fixture(scope="module")
def stack(
    environment: dict[str, str], killed: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """The stack of all tests, on the database of the one that lost its worker."""
    assert killed
    with started_stack(environment, tmp_path_factory.mktemp("stack") / "stack.log") as stack:
        yield stack


def test_the_server_has_what_the_file_says(stack: Stack, environment: dict[str, str], receiver: Receiver):
    pool = stack.api.post("work_pools/filter", {})
    assert [(one["name"], one["type"]) for one in pool] == [("darkroom", "process")]
    deployed = deployments(stack.api)
    nightly, thumbnails = deployed["nightly"], deployed["thumbnails"]
    assert nightly["tags"] == ["darkroom"]
    assert "**new or changed**" in nightly["description"]
    assert nightly["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    assert nightly["global_concurrency_limit"]["limit"] == 1
    assert nightly["job_variables"] == {"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}}
    assert nightly["parameters"]["source"] == environment["DARKROOM_SOURCE"]
    assert nightly["parameters"]["destination"] == environment["DARKROOM_DESTINATION"]
    assert nightly["parameters"]["recipe"]["width"] == 600
    assert thumbnails["parameters"]["recipe"] == nightly["parameters"]["recipe"] | {
        "width": 160, "height": 160, "fit": "cover"
    }  # fmt: skip
    [schedule] = nightly["schedules"]
    assert (schedule["schedule"]["cron"], schedule["schedule"]["timezone"]) == ("0 2 * * *", "UTC")
    assert schedule["active"]
    assert not thumbnails["schedules"][0]["active"], "it lacks DARKROOM_THUMBNAILS"
    assert set(automations(stack.api)) == {ZOMBIES, NOTIFICATION}
    said = stack.output.read_text()
    assert "preprocess/nightly: 0 2 * * * UTC" in said
    assert "paused; DARKROOM_THUMBNAILS not set" in said
    assert receiver.url not in said
    assert receiver.url not in json.dumps(stack.api.post("block_documents/filter", {})), "a webhook's URL is a secret"


def test_deploying_again_changes_only_what_changed(stack: Stack, tmp_path: Path):
    before, rules = deployments(stack.api), automations(stack.api)
    [schedule] = before["nightly"]["schedules"]
    assert stack.prefect("deployment", "schedule", "pause", "preprocess/nightly", schedule["id"]).code == 0

    again = stack.python("-m", "deployments.deploy", DARKROOM_THUMBNAILS=str(tmp_path), DARKROOM_NOTIFY="")

    assert again.code == 0, again.err
    assert "preprocess/nightly: 0 2 * * * UTC, paused\n" in again.out, "a user's pause is kept"
    assert "preprocess/thumbnails: 30 2 * * * UTC\n" in again.out
    after = deployments(stack.api)
    assert {name: one["id"] for name, one in after.items()} == {name: one["id"] for name, one in before.items()}
    assert after["thumbnails"]["schedules"][0]["active"]
    assert len(after["nightly"]["schedules"]) == 1
    assert automations(stack.api) == rules, "not even updated: what they wait for would be forgotten"


@pytest.mark.parametrize(
    ("environment_too", "said"),
    [
        ({"PREFECT_API_URL": "http://127.0.0.1:9/api"}, "no Prefect server answers at http://127.0.0.1:9/api"),
        ({"PREFECT_API_URL": ""}, "PREFECT_API_URL is not set"),
        ({"DARKROOM_NOTIFY": "slack-webhook/none"}, "there is no block 'slack-webhook/none'"),
        ({"DARKROOM_NOTIFY": "nowhere://s3cret"}, "this nowhere:// URL"),
    ],
)
def test_a_wrong_environment_is_told(environment_too: dict[str, str], said: str, stack: Stack):
    refused = stack.python("-m", "deployments.deploy", **environment_too)

    assert refused.code == 2
    assert said in refused.err
    assert "Traceback" not in refused.err
    assert "s3cret" not in refused.err + refused.out


def test_a_schedule_fires(stack: Stack, environment: dict[str, str], few: Path):
    soon = (datetime.now(UTC) + timedelta(seconds=8)).isoformat()
    nightly = deployments(stack.api)["nightly"]
    stack.api.post(
        f"deployments/{nightly['id']}/schedules",
        [{"active": True, "schedule": {"interval": timedelta(days=1).total_seconds(), "anchor_date": soon}}],
    )
    due = {"flow_runs": {"name": {"like_": few.name}}, "deployments": {"id": {"any_": [nightly["id"]]}}}

    [flow_run] = eventually(lambda: stack.api.post("flow_runs/filter", due), 60)

    flow_run = ended(stack.api, flow_run["id"], "COMPLETED")
    assert flow_run["auto_scheduled"]
    assert "darkroom" in flow_run["tags"]
    assert flow_run["state"]["message"] == "10 made, 0 failed, 0 unchanged"
    out = Path(environment["DARKROOM_DESTINATION"])
    assert {(row["width"], row["height"]) for row in manifest_rows(out).values()} == {(600, 600)}
    every_image_is_whole(out)


def test_a_run_by_hand_ends_as_its_flow_run_does_and_a_bad_end_is_told(
    stack: Stack, few: Path, receiver: Receiver, tmp_path: Path
):
    out = tmp_path / "out"

    good = stack.prefect(
        "deployment", "run", "preprocess/nightly", "--watch", "-p", f"destination={out}", "-p", ONE_WORKER
    )
    parameters = json.dumps({"source": str(few / "none"), "destination": str(out)})
    bad = stack.prefect("deployment", "run", "preprocess/nightly", "--watch", "--params", parameters)

    assert good.code == 0, good.out + good.err
    assert len(manifest_rows(out)) == 10
    assert bad.code == 1
    flow_run = stack.api.flow_run(bad.out.split("UUID: ")[1].split()[0])
    reason = f"source: {few}/none does not exist. Give the folder that holds the images."
    assert (flow_run["state_type"], flow_run["state"]["message"]) == ("FAILED", reason)
    message = receiver.told_of(flow_run["id"])
    assert message["subject"] == f"Darkroom: {flow_run['name']} Failed"
    page = f"{stack.environment['PREFECT_API_URL'].removesuffix('/api')}/runs/flow-run/{flow_run['id']}"
    assert message["body"].splitlines() == [f"nightly: {flow_run['name']} ended as Failed.", reason, page]
    assert not any("COMPLETED" in str(one) or "Completed" in str(one) for one in receiver.messages)


def test_an_overlapping_run_is_cancelled_and_a_cancelled_one_leaves_nothing_half_done_and_a_retry_resumes(
    stack: Stack, many: Path, tmp_path: Path
):
    out = tmp_path / "out"
    where = ("-p", f"source={many}", "-p", f"destination={out}")
    first = run(stack, "preprocess/nightly", *where)
    eventually(lambda: journalled(out))

    second = stack.prefect("deployment", "run", "preprocess/nightly", "--watch", *where)

    assert second.code == 1
    overlapping = stack.api.flow_run(second.out.split("UUID: ")[1].split()[0])
    assert (overlapping["state_type"], overlapping["state"]["message"]) == (
        "CANCELLED",
        "Deployment concurrency limit reached.",
    )

    assert stack.api.flow_run(first)["state_type"] == "RUNNING", "the photos are too few for this machine"
    processes = [one for one in stack.processes() if one.environ().get("PREFECT__FLOW_RUN_ID") == str(UUID(first))]
    assert processes
    stack.api.post(f"flow_runs/{first}/set_state", {"state": {"type": "CANCELLING"}})
    ended(stack.api, first, "CANCELLED")
    eventually(lambda: not any(one.is_running() for one in processes), 10)
    assert read_lease(Destination(out)) is None
    assert not (out / "manifest.parquet").exists()
    made = {path: path.stat().st_mtime_ns for path in out.glob("images/*")}
    for path in made:
        with Image.open(path) as image:
            image.load()

    assert stack.prefect("flow-run", "retry", first).code == 0
    eventually(lambda: stack.api.flow_run(first)["run_count"] == 2)
    flow_run = ended(stack.api, first, "COMPLETED")

    again, _, unchanged = (int(part.split()[0]) for part in flow_run["state"]["message"].split(", "))
    assert unchanged > 0, "it did not start over"
    assert again + unchanged == 200
    assert sum(path.stat().st_mtime_ns == when for path, when in made.items()) == unchanged
    every_image_is_whole(out)


def test_a_run_that_died_is_marked_and_told_and_the_next_one_adopts_its_work(
    stack: Stack, killed: tuple[str, Path], many: Path, receiver: Receiver
):
    run_id, out = killed

    flow_run = ended(stack.api, run_id, "CRASHED")

    assert flow_run["state"]["message"].startswith("Its process died: no heartbeat for 90 s.")
    assert flow_run["state"]["message"] in receiver.told_of(run_id)["body"]
    following = run(stack, "preprocess/thumbnails", "-p", f"source={many}", "-p", f"destination={out}")
    made, _, unchanged = ended(stack.api, following, "COMPLETED")["state"]["message"].split(", ")
    assert int(unchanged.split()[0]) > 0
    assert int(made.split()[0]) + int(unchanged.split()[0]) == 200
    every_image_is_whole(out)


def test_a_port_that_is_taken_is_told(stack: Stack):
    refused = stack.python("-m", "deployments.stack")

    assert refused.code == 2
    assert "PREFECT_SERVER_API_PORT: 127.0.0.1:" in refused.err
    assert "Traceback" not in refused.err
    assert stack.process.poll() is None


def test_ctrl_c_ends_runs_in_order_and_leaves_nothing(stack: Stack, many: Path, tmp_path: Path):
    out = tmp_path / "out"
    run_id = run(stack, "preprocess/nightly", "-p", f"source={many}", "-p", f"destination={out}")
    eventually(lambda: journalled(out))

    os.killpg(stack.process.pid, signal.SIGINT)

    assert stack.process.wait(60) == 0
    assert stack.output.read_text().endswith("stack  | Stopped.\n")
    assert stack.processes() == []
    with socket.create_server(("127.0.0.1", int(stack.environment["PREFECT_SERVER_API_PORT"]))):
        pass
    assert read_lease(Destination(out)) is None
    assert journalled(out)
    with sqlite3.connect(Path(stack.environment["PREFECT_HOME"]) / "prefect.db") as database:
        query = "SELECT state_type FROM flow_run WHERE replace(id, '-', '') = ?"
        [(state,)] = database.execute(query, [UUID(run_id).hex]).fetchall()
    database.close()
    assert state == "CRASHED", "it was told to end while there was a server to tell it to"
