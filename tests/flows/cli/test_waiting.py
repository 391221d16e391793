"""Long waits are named."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
from harness import clean_environment, darkroom

from darkroom.flows.cli import waiting


def test_only_long_waits_are_named(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    monkeypatch.setattr(waiting, "NAME_SECONDS", 0.2)
    with waiting.named(lambda: "nothing"):
        pass
    with waiting.named(lambda: "a long time"):
        time.sleep(0.5)
    assert capfd.readouterr().err == "darkroom: Waiting for a long time.\n"


def test_a_server_that_never_answers_is_named_during_and_after_the_wait(tmp_path: Path):
    (tmp_path / "photos").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
        environment = clean_environment(tmp_path) | {"PREFECT_API_URL": url}
        ended = darkroom("run", "photos", "dest", environment=environment, seconds=60)
    begun, waited, failed = ended.err.splitlines()
    assert begun == "darkroom: Connecting to the configured Prefect server."
    assert waited == f"darkroom: Waiting for the Prefect server at {url} to answer."
    assert failed.startswith(f"darkroom: PREFECT_API_URL: {url} did not answer within 8 s. Start it, mend the setting")
    assert ended.code == 2
