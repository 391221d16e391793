"""The deployments on a Prefect server with a worker, which all tests of this module share.

The processes of a run are killed before the first test, and the last one checks that run: by then its heartbeats have
been missing for long enough.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from harness import Api, check_images, eventually, journalled, manifest_rows
from installation import ONE_WORKER, Installation, Receiver
from prefect.states import Cancelling

from darkroom.deployments.automations import HEARTBEAT_SECONDS, NOTIFICATION, UNSTARTED, ZOMBIES
from darkroom.tasks.dataset.lease import read_lease
from tests.places import destination_at


def deployments(api: Api) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in api.post("deployments/filter", {})}


def check_outputs(out: Path) -> None:
    """Check that below `images/` there are only whole images, and one for each row."""
    names = {row["file_name"] for row in manifest_rows(out).values()}
    assert {str(path.relative_to(out)) for path in out.glob("images/**/*") if path.is_file()} == names
    check_images(out)


@pytest.fixture(scope="module")
def deployed(server: Installation) -> Installation:
    """Deploy everything to the Prefect server; `deployed.txt` has the command's output."""
    done = server.module("darkroom.deployments.deploy")
    assert done.code == 0, done.err
    server.log.with_name("deployed.txt").write_text(done.out)
    return server


@pytest.fixture(scope="module")
def killed(deployed: Installation, many: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Kill the process and the worker of a flow run in its middle; return its id and destination."""
    out = tmp_path_factory.mktemp("killed") / "out"
    with deployed.started("darkroom.deployments.flow_worker", until="started!") as worker:
        run_id = deployed.run("preprocess/thumbnails", source=many, destination=out)
        eventually(lambda: journalled(out))
        for command in ("prefect worker start", "prefect.engine"):
            [process] = deployed.processes(command)
            process.kill()
        worker.wait(60)
    return run_id, out


@pytest.fixture(scope="module")
def nightly(deployed: Installation, killed: tuple[str, Path]) -> Iterator[Installation]:
    """Provide the server with a worker that is started after the kill."""
    assert killed
    with deployed.started("darkroom.deployments.flow_worker", until="started!"):
        yield deployed


def test_the_server_has_the_deployments_of_the_file(nightly: Installation, receiver: Receiver):
    pool = nightly.api.post("work_pools/filter", {})
    assert [(one["name"], one["type"]) for one in pool] == [("darkroom", "process")]
    deployed = deployments(nightly.api)
    photos, thumbnails = deployed["nightly"], deployed["thumbnails"]
    assert photos["tags"] == ["darkroom"]
    assert "**new or changed**" in photos["description"]
    assert photos["global_concurrency_limit"] is None, (
        "no limit: the lease keeps only runs of the same destination apart"
    )
    assert photos["job_variables"] == {"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS)}}
    assert photos["parameters"]["source"] == nightly.environment["DARKROOM_SOURCE"]
    assert photos["parameters"]["destination"] == nightly.environment["DARKROOM_DESTINATION"]
    assert photos["parameters"]["recipe"]["width"] == 600
    assert thumbnails["parameters"]["recipe"] == photos["parameters"]["recipe"] | {
        "width": 160, "height": 160, "fit": "cover"
    }  # fmt: skip
    [schedule] = photos["schedules"]
    assert (schedule["schedule"]["cron"], schedule["schedule"]["timezone"]) == ("0 2 * * *", "UTC")
    assert schedule["active"]
    weekly = deployed["weekly"]
    assert (weekly["entrypoint"], weekly["tags"]) == ("flows/verify.py:verify", ["darkroom"])
    assert weekly["parameters"] == {
        "destination": photos["parameters"]["destination"],
        "sample": 1.0,
        "repair": False,
        "compute": photos["parameters"]["compute"],
    }
    assert weekly["schedules"][0]["schedule"]["cron"] == "0 6 * * 0"
    assert not thumbnails["schedules"][0]["active"], "it lacks DARKROOM_THUMBNAILS"
    assert set(nightly.automations()) == {ZOMBIES, UNSTARTED, NOTIFICATION}
    printed = nightly.log.with_name("deployed.txt").read_text()
    assert "preprocess/nightly: 0 2 * * * UTC" in printed
    assert "paused; DARKROOM_THUMBNAILS not set" in printed
    assert receiver.url not in printed
    assert receiver.url not in json.dumps(nightly.api.post("block_documents/filter", {})), "a webhook's URL is a secret"


@pytest.mark.slow
def test_partitions_are_runs_of_a_deployment(nightly: Installation, few: Path, tmp_path: Path):
    for name in ("a", "b", "broken"):
        shutil.copytree(few, tmp_path / "source" / name)
    for image in (tmp_path / "source/broken").iterdir():
        image.write_text("no image")
    (tmp_path / "out/gone").mkdir(parents=True)
    script = f"""
from darkroom import preprocess_partitions
settings = {{"compute": {{"workers": 1}}, "recipe": {{"width": 32, "height": 32}}}}
state = preprocess_partitions({str(tmp_path / "source")!r}, {str(tmp_path / "out")!r}, at_once=2, parameters=settings,
    return_state=True)
print(state.name, "|", state.message)
"""
    (tmp_path / "script.py").write_text(script)

    ended = subprocess.run(
        [nightly.python, tmp_path / "script.py"], env=nightly.environment, capture_output=True, text=True, check=True
    )

    assert ended.stdout.splitlines()[-1] == "Failed | 3 partitions, 1 failed: broken (Failed)"
    assert "No longer in the source, left as they are: gone" in ended.stderr
    assert len(manifest_rows(tmp_path / "out/a")) == len(manifest_rows(tmp_path / "out/b")) == 10
    assert {row["width"] for row in manifest_rows(tmp_path / "out/a").values()} == {32}


def test_deploying_again_changes_only_differences(nightly: Installation, tmp_path: Path):
    before, rules = deployments(nightly.api), nightly.automations()
    [schedule] = before["nightly"]["schedules"]
    assert nightly.prefect("deployment", "schedule", "pause", "preprocess/nightly", schedule["id"]).code == 0

    again = nightly.module("darkroom.deployments.deploy", DARKROOM_THUMBNAILS=str(tmp_path), DARKROOM_NOTIFY="")

    assert again.code == 0, again.err
    assert "preprocess/nightly: 0 2 * * * UTC, paused\n" in again.out, "a user's pause is kept"
    assert "preprocess/thumbnails: 30 2 * * * UTC\n" in again.out
    after = deployments(nightly.api)
    assert {name: one["id"] for name, one in after.items()} == {name: one["id"] for name, one in before.items()}
    assert after["thumbnails"]["schedules"][0]["active"]
    assert len(after["nightly"]["schedules"]) == 1
    assert nightly.automations() == rules, "a write resets the heartbeats that the server expects"


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"PREFECT_API_URL": "http://127.0.0.1:9/api"}, "no Prefect server answers at http://127.0.0.1:9/api"),
        ({"PREFECT_API_URL": ""}, "PREFECT_API_URL is not set"),
        ({"DARKROOM_DESTINATION": ""}, "DARKROOM_DESTINATION not set, though preprocess/nightly was deployed with"),
        ({"DARKROOM_NOTIFY": "slack-webhook/none"}, "there is no block 'slack-webhook/none'"),
    ],
)
def test_a_wrong_environment_is_refused(environment: dict[str, str], reason: str, nightly: Installation):
    refused = nightly.module("darkroom.deployments.deploy", **environment)

    assert refused.code == 2
    assert reason in refused.err
    assert "Traceback" not in refused.err


@pytest.mark.parametrize("url", ["", "http://127.0.0.1:9/api"])
def test_a_worker_without_a_server_is_refused(url: str, nightly: Installation):
    refused = nightly.module("darkroom.deployments.flow_worker", PREFECT_API_URL=url)
    assert refused.code == 2
    assert ("no Prefect server answers" if url else "PREFECT_API_URL is not set") in refused.err
    assert "Traceback" not in refused.err


def test_a_schedule_fires(nightly: Installation):
    deployment = deployments(nightly.api)["nightly"]
    soon = (datetime.now(UTC) + timedelta(seconds=15)).isoformat()
    daily = ("--interval", str(24 * 60 * 60), "--anchor-date", soon)
    assert nightly.prefect("deployment", "schedule", "create", "preprocess/nightly", *daily).code == 0
    due = {"flow_runs": {"name": {"like_": "nightly"}}, "deployments": {"id": {"any_": [deployment["id"]]}}}

    [flow_run] = eventually(lambda: nightly.api.post("flow_runs/filter", due), 60)

    flow_run = nightly.ended(flow_run["id"], "COMPLETED")
    assert flow_run["auto_scheduled"]
    assert "darkroom" in flow_run["tags"]
    assert flow_run["state"]["message"] == "10 made, 0 failed, 0 unchanged"
    out = Path(nightly.environment["DARKROOM_DESTINATION"])
    assert {(row["width"], row["height"]) for row in manifest_rows(out).values()} == {(600, 600)}
    check_outputs(out)


def test_a_run_by_hand_exits_as_its_flow_run_ends_and_only_a_failure_is_notified(
    nightly: Installation, few: Path, receiver: Receiver, tmp_path: Path
):
    out = tmp_path / "out"

    good = nightly.prefect(
        "deployment", "run", "preprocess/nightly", "--watch", "-p", f"destination={out}", "-p", ONE_WORKER
    )
    verified = nightly.run("verify/weekly", destination=out)
    parameters = json.dumps({"source": str(tmp_path / "late"), "destination": str(out)})
    bad = nightly.prefect("deployment", "run", "preprocess/nightly", "--watch", "--params", parameters)

    assert good.code == 0, good.out + good.err
    nightly.ended(verified, "COMPLETED")
    assert len(manifest_rows(out)) == 10
    assert bad.code == 1
    flow_run = nightly.api.flow_run(bad.out.split("UUID: ")[1].split()[0])
    reason = f"source: {tmp_path}/late does not exist. Give the folder or the list of the images."
    assert (flow_run["state_type"], flow_run["state"]["message"]) == ("FAILED", reason)
    message = receiver.wait_for(flow_run["id"])
    assert message["subject"] == f"Darkroom: {flow_run['name']} Failed"
    page = f"{nightly.environment['PREFECT_API_URL'].removesuffix('/api')}/runs/flow-run/{flow_run['id']}"
    assert message["body"].splitlines() == [f"nightly: {flow_run['name']} ended as Failed.", reason, page]
    assert not any("COMPLETED" in str(one) or "Completed" in str(one) for one in receiver.messages)

    shutil.copytree(few, tmp_path / "late")
    assert nightly.prefect("flow-run", "retry", flow_run["id"]).code == 0
    again = nightly.ended(flow_run["id"], "COMPLETED")

    assert again["state"]["message"] == "0 made, 0 failed, 10 unchanged", "the copies have other change times"
    assert again["name"] == flow_run["name"]


def test_an_overlapping_run_is_cancelled_and_a_retry_resumes_a_cancelled_one(
    nightly: Installation, many: Path, few: Path, tmp_path: Path
):
    out = tmp_path / "out"
    first = nightly.run("preprocess/nightly", source=many, destination=out)
    eventually(lambda: journalled(out))
    processes = [one for one in nightly.processes() if one.environ().get("PREFECT__FLOW_RUN_ID") == first]
    # The run must not end before the others do. Its flow goes on: without heartbeats it would be marked as crashed.
    [flow] = nightly.processes("prefect.engine")
    held = [one for one in processes if one != flow]
    for one in held:
        one.suspend()
    try:
        second = nightly.prefect(
            *("deployment", "run", "preprocess/nightly", "--watch"),
            *("-p", f"source={many}", "-p", f"destination={out}", "-p", ONE_WORKER),
        )
        assert second.code == 1
        reason = f"{out} is in use by run {first} on "
        # Lines are wrapped, also within a path.
        assert reason.replace(" ", "") in "".join(second.out.split()), "the reason is visible where the run is watched"
        overlapping = nightly.ended(second.out.split("UUID: ")[1].split()[0], "CANCELLED")
        assert overlapping["state"]["message"].startswith(reason)
        elsewhere = nightly.run("preprocess/nightly", source=few, destination=tmp_path / "elsewhere")
        nightly.ended(elsewhere, "COMPLETED")
        assert nightly.api.flow_run(first)["state_type"] == "RUNNING"
    finally:
        for one in held:
            one.resume()
    with nightly.client() as client:
        client.set_flow_run_state(UUID(first), Cancelling())
    nightly.ended(first, "CANCELLED", 30)
    eventually(lambda: not any(one.is_running() for one in processes), 10)
    assert read_lease(destination_at(out)) is None
    assert not (out / "manifest.parquet").exists()
    assert nightly.api.latest_summary(out).startswith("# Stopped: ")
    made = {path: path.stat().st_mtime_ns for path in out.glob("images/*")}
    check_images(out)

    assert nightly.prefect("flow-run", "retry", first).code == 0
    eventually(lambda: nightly.api.flow_run(first)["run_count"] == 2)
    flow_run = nightly.ended(first, "COMPLETED")

    again, _, adopted, unchanged = (int(part.split()[0]) for part in flow_run["state"]["message"].split(", "))
    assert " adopted, " in flow_run["state"]["message"]
    assert (again + adopted, unchanged) == (200, 0)
    assert sum(path.stat().st_mtime_ns == when for path, when in made.items()) == adopted
    check_outputs(out)


def test_a_killed_run_is_marked_crashed_and_notified_and_a_retry_resumes_it(
    nightly: Installation, killed: tuple[str, Path], receiver: Receiver
):
    run_id, out = killed

    flow_run = nightly.ended(run_id, "CRASHED")

    assert flow_run["state"]["message"].startswith("Its process died: no heartbeat for 90 s.")
    assert flow_run["state"]["message"] in receiver.wait_for(run_id)["body"]
    assert nightly.prefect("flow-run", "retry", run_id).code == 0
    eventually(lambda: nightly.api.flow_run(run_id)["run_count"] == 2)
    made, _, adopted, _ = nightly.ended(run_id, "COMPLETED")["state"]["message"].split(", ")
    assert int(adopted.split()[0]) > 0
    assert int(made.split()[0]) + int(adopted.split()[0]) == 200
    check_outputs(out)
