"""The server of `make stack`: Prefect's own, with transactions that wait for each other."""

from __future__ import annotations

from pathlib import Path

from harness import clean_environment, refused

from benchmarks.server import prefect_server


def test_requests_wait_for_each_others_transactions(tmp_path: Path):
    with prefect_server(clean_environment(tmp_path), tmp_path / "log", "darkroom.deployments.server") as server:
        assert refused(server.api_url) == []
    assert "database is locked" not in (tmp_path / "log").read_text()
