"""`make stack`: all of it comes up, and all of it goes."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
from pathlib import Path
from uuid import UUID

from harness import eventually, journalled
from installation import Installation

from darkroom.tasks.dataset.lease import read_lease
from tests.places import destination_at


def test_ctrl_c_ends_runs_in_order_and_leaves_nothing(installation: Installation, many: Path, tmp_path: Path):
    out = tmp_path / "out"
    with installation.piece("darkroom.deployments.stack", "started!") as stack:
        again = installation.python("-m", "darkroom.deployments.stack")
        assert again.code == 2
        assert "PREFECT_SERVER_API_PORT: 127.0.0.1:" in again.err
        assert "Traceback" not in again.err
        run_id = installation.run("preprocess/nightly", source=many, destination=out)
        eventually(lambda: journalled(out))

        os.killpg(stack.pid, signal.SIGINT)

        assert stack.wait(60) == 0
    said = installation.log.read_text()
    assert f"server | UI {installation.environment['PREFECT_API_URL'].removesuffix('/api')}\n" in said
    assert "deploy | deployment  preprocess/nightly: 0 2 * * * UTC\n" in said
    assert said.endswith("stack  | Stopped.\n")
    # Prefect's server on SQLite tells of locks that it waits for on a slow machine.
    ours = "\n".join(line for line in said.splitlines() if not line.startswith("server"))
    assert "Traceback" not in ours
    assert installation.processes() == []
    with socket.create_server(("127.0.0.1", int(installation.environment["PREFECT_SERVER_API_PORT"]))):
        pass
    assert read_lease(destination_at(out)) is None
    assert journalled(out)
    with sqlite3.connect(Path(installation.environment["PREFECT_HOME"]) / "prefect.db") as database:
        query = "SELECT state_type FROM flow_run WHERE replace(id, '-', '') = ?"
        [(state,)] = database.execute(query, [UUID(run_id).hex]).fetchall()
    database.close()
    assert state == "CRASHED", "it was told to end while there was a server to tell it to"


def test_when_a_piece_dies_the_rest_is_stopped(installation: Installation):
    with installation.piece("darkroom.deployments.stack", "UI http") as stack:
        for process in installation.processes("darkroom.deployments.prefect_server"):
            process.kill()

        assert stack.wait(60) == 1

    assert "The server ended (killed by SIGKILL), so that the rest is stopped too." in installation.log.read_text()
    assert installation.processes() == []


def test_when_the_stack_is_killed_nothing_is_left(installation: Installation):
    with installation.piece("darkroom.deployments.stack", "started!") as stack:
        assert installation.processes("prefect worker start")

        stack.kill()

        eventually(lambda: installation.processes() == [], 60)


def test_half_a_dataset_is_told(installation: Installation):
    refused = installation.python("-m", "darkroom.deployments.stack", DARKROOM_SOURCE="")

    assert refused.code == 2
    assert "DARKROOM_SOURCE is not set. Set both" in refused.err
