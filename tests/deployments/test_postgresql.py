"""The Prefect server on PostgreSQL, as in a permanent installation."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from harness import CHECKOUT, Api, clean_environment, darkroom, eventually, manifest_rows, run_id_of
from needs import needs

from benchmarks.server import prefect_server
from tests.ports import free_ports


@dataclass(frozen=True)
class Database:
    """A running PostgreSQL."""

    url: str
    psql: list[str]

    def query(self, sql: str) -> list[str]:
        done = subprocess.run([*self.psql, "--command", sql], capture_output=True, text=True, check=True)
        return done.stdout.split()


@pytest.fixture
def postgresql(open_path: Path) -> Iterator[Database]:
    programs = Path(needs("initdb", "postgresql", folders="usr/lib/postgresql/*/bin")).resolve().parent
    # It refuses to run as root.
    user: dict[str, Any] = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
    data = open_path / "data"
    initdb = [programs / "initdb", "--pgdata", data, "--username", "prefect", "--auth", "trust", "--no-sync"]
    subprocess.run(initdb, cwd=open_path, stdout=subprocess.DEVNULL, check=True, **user)
    [port] = map(str, free_ports(1))
    settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": open_path, "fsync": "off"}
    command = [programs / "postgres", "-D", data, *(f"--{name}={value}" for name, value in settings.items())]
    with (open_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=open_path, stdout=log, stderr=subprocess.STDOUT, **user)
    connection = ["--host", "127.0.0.1", "--port", port, "--username", "prefect"]
    ready = [programs / "pg_isready", "--quiet", *connection]
    try:
        eventually(lambda: subprocess.run(ready, check=False).returncode == 0)
        psql = [programs / "psql", *connection, "--dbname", "postgres", "--no-psqlrc", "--tuples-only", "--no-align"]
        yield Database(f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres", [str(word) for word in psql])
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.slow
def test_history_and_schedules_are_kept_in_postgresql(postgresql: Database, few: Path, tmp_path: Path):
    environment = clean_environment(tmp_path, is_empty=True) | {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": postgresql.url,
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    out = tmp_path / "out"
    with prefect_server(environment, tmp_path / "server.log") as server:
        user = clean_environment(tmp_path) | {"PREFECT_API_URL": server.api_url}

        ended = darkroom("run", few, out, environment=user)

        assert ended.code == 0, ended.err
        run_id = run_id_of(out)
        api = Api(server.api_url, tmp_path)
        assert api.flow_run(run_id)["state_type"] == "COMPLETED"
        assert {artifact["key"].rpartition("-")[2] for artifact in api.artifacts(run_id)} >= {"summary", "progress"}
        user |= {"DARKROOM_SOURCE": str(few), "DARKROOM_DESTINATION": str(out)}
        deploy = [sys.executable, "-m", "darkroom.deployments.deploy"]
        subprocess.run(deploy, env=user, cwd=CHECKOUT, stdout=subprocess.DEVNULL, check=True)
        due = "SELECT count(*) > 0 FROM flow_run WHERE state_name = 'Scheduled' AND auto_scheduled"
        eventually(lambda: postgresql.query(due) == ["t"])

    assert len(manifest_rows(out)) == 10
    assert postgresql.query(f"SELECT state_type FROM flow_run WHERE id = '{run_id}'") == ["COMPLETED"]
    assert postgresql.query("SELECT DISTINCT state_type FROM task_run") == ["COMPLETED"]
    assert not list(tmp_path.glob(".prefect/*.db")), "SQLite was not used"
