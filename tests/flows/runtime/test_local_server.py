"""A server for a run that has none: how it fails and how it ends."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest
from harness import clean_environment

from darkroom.flows.runtime.local_server import LocalServer, environment, without_password
from darkroom.tasks.errors import DarkroomError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in clean_environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    return tmp_path


def test_a_server_that_can_not_start_has_a_remedy(home: Path):
    (home / ".prefect").write_text("no folder")
    server = LocalServer()
    with pytest.raises(DarkroomError, match=r"did not start: .+\. Start one yourself with 'prefect server start'"):
        server.wait_until_healthy()
    assert server.is_lost()
    server.stop()


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


def test_environment_variables_are_restored():
    os.environ["DARKROOM_TEST"] = "before"
    with environment({"DARKROOM_TEST": "within", "DARKROOM_NEW": "1"}):
        assert (os.environ["DARKROOM_TEST"], os.environ["DARKROOM_NEW"]) == ("within", "1")
    assert os.environ.pop("DARKROOM_TEST") == "before"
    assert "DARKROOM_NEW" not in os.environ


@pytest.mark.parametrize(
    ("url", "shown"),
    [("http://a:b@h:1/api", "http://…@h:1/api"), ("http://h/api@v", "http://h/api@v"), ("http://h", "http://h")],
)
def test_a_password_is_not_shown(url: str, shown: str):
    assert without_password(url) == shown
