"""`make stack`: everything starts, and nothing is left when it ends."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
from pathlib import Path
from uuid import UUID

import pytest
from harness import eventually, journalled
from installation import Installation

from darkroom.tasks.dataset.lease import read_lease
from tests.places import destination_at


def test_ctrl_c_stops_flow_runs_before_the_server_and_leaves_no_process(
    installation: Installation, many: Path, tmp_path: Path
):
    out = tmp_path / "out"
    with installation.started("darkroom.deployments.stack", until="started!") as stack:
        again = installation.module("darkroom.deployments.stack")
        assert again.code == 2
        assert "PREFECT_SERVER_API_PORT: 127.0.0.1:" in again.err
        assert "Traceback" not in again.err
        run_id = installation.run("preprocess/nightly", source=many, destination=out)
        eventually(lambda: journalled(out))

        os.killpg(stack.pid, signal.SIGINT)

        assert stack.wait(60) == 0
    printed = installation.log.read_text()
    assert f"server | UI {installation.environment['PREFECT_API_URL'].removesuffix('/api')}\n" in printed
    assert "deploy | deployment  preprocess/nightly: 0 2 * * * UTC\n" in printed
    assert printed.endswith("stack  | Stopped.\n")
    assert "Traceback" not in printed
    assert "Crash" not in printed.replace("are marked Crashed", "")
    assert installation.processes() == []
    with socket.create_server(("127.0.0.1", int(installation.environment["PREFECT_SERVER_API_PORT"]))):
        pass
    assert read_lease(destination_at(out)) is None
    assert journalled(out)
    with sqlite3.connect(Path(installation.environment["PREFECT_HOME"]) / "prefect.db") as database:
        query = "SELECT state_type FROM flow_run WHERE replace(id, '-', '') = ?"
        [(state,)] = database.execute(query, [UUID(run_id).hex]).fetchall()
    database.close()
    assert state == "CANCELLED", "the server still ran and recorded its end"


def test_when_one_process_dies_the_rest_is_stopped(installation: Installation):
    with installation.started("darkroom.deployments.stack", until="UI http") as stack:
        for process in installation.processes("darkroom.deployments.server"):
            process.kill()

        assert stack.wait(60) == 1

    assert "The server ended (killed by SIGKILL), so that the rest is stopped too." in installation.log.read_text()
    assert installation.processes() == []


@pytest.mark.slow
def test_when_the_stack_is_killed_no_process_is_left(installation: Installation):
    with installation.started("darkroom.deployments.stack", until="started!") as stack:
        assert installation.processes("prefect worker start")

        stack.kill()

        eventually(lambda: installation.processes() == [], 60)


def test_a_destination_without_a_source_is_refused(installation: Installation):
    refused = installation.module("darkroom.deployments.stack", DARKROOM_SOURCE="")

    assert refused.code == 2
    assert "DARKROOM_SOURCE not set. Set both" in refused.err


def test_a_source_that_does_not_exist_is_refused(installation: Installation):
    refused = installation.module("darkroom.deployments.stack", DARKROOM_SOURCE="/nowhere")

    assert refused.code == 2
    assert "source: /nowhere does not exist." in refused.err
