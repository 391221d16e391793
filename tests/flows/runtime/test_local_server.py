"""A server for a run that has none: how it fails and how it ends."""

from __future__ import annotations

import shutil
import socket
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from harness import clean_environment
from prefect.settings import PREFECT_API_URL, temporary_settings

from darkroom.flows.runtime import local_server
from darkroom.flows.runtime.local_server import LocalServer, check_api, without_password
from darkroom.tasks.errors import DarkroomError, SettingsError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in clean_environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    return tmp_path


def test_the_error_of_a_server_that_cannot_start_has_a_cause_and_a_remedy(home: Path):
    shutil.rmtree(home / ".prefect")
    (home / ".prefect").write_text("no folder")
    server = LocalServer()
    message = (
        rf"did not start: unable to open database file\. See that {home}/\.prefect is this user's.+\. "
        "Start one yourself with 'prefect server start'"
    )
    with pytest.raises(DarkroomError, match=message):
        server.wait_until_healthy()
    assert server.is_lost()
    server.stop()


def test_a_wait_for_a_locked_database_and_its_failure_name_the_database(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(local_server, "START_SECONDS", 0.5)
    database = home / ".prefect/prefect.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        server = LocalServer()
        assert server.waits_for() == f"Prefect's database {database}, which another process has locked"
        with pytest.raises(DarkroomError, match=rf"{database} is locked by another process, which 'fuser' shows"):
            server.wait_until_healthy()
        connection.rollback()
        assert server.waits_for() == "the local Prefect server to start"
        server.stop()


@pytest.mark.parametrize(
    ("errors", "cause"),
    [
        ("", "it printed no error"),
        ("a\nValueError: bad.\n", "bad"),
        (
            "KeyError: 1\nsqlalchemy.exc.OperationalError: (sqlite3.OperationalError) disk full\n(Background)",
            "disk full",
        ),
        ("sqlite3.OperationalError: no room\nFatal Python error: x\n  <no Python frame>\n\n", "no room"),
        ("python: No module named x\n", "python: No module named x"),
    ],
)
def test_the_cause_is_the_last_exception(errors: str, cause: str):
    assert local_server._cause(errors) == cause


def test_an_api_that_never_answers_is_not_retried(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(local_server, "CONNECT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
        started = time.monotonic()
        with temporary_settings({PREFECT_API_URL: url}), pytest.raises(SettingsError, match="did not answer within"):
            check_api()
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("killed", [False, True])
def test_a_server_is_lost_only_if_it_was_not_stopped(killed: bool):
    others = set(psutil.Process().children())
    server = LocalServer()
    [process] = [child for child in psutil.Process().children() if child not in others]
    if killed:
        process.kill()
        assert server.is_lost()
    server.stop()
    assert killed or not server.is_lost()
    assert not process.is_running()


@pytest.mark.parametrize(
    ("url", "shown"),
    [("http://a:b@h:1/api", "http://…@h:1/api"), ("http://h/api@v", "http://h/api@v"), ("http://h", "http://h")],
)
def test_a_password_is_not_shown(url: str, shown: str):
    assert without_password(url) == shown
