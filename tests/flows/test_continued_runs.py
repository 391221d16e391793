"""A run that was killed or has failed is continued by the next."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from harness import Api, Started, at_work, darkroom, eventually, gone, journalled, lasting, manifest_rows, run_id_of

from tests.contents import files


def test_a_run_killed_outright_is_continued_by_the_next(
    api: Api, start: Callable[..., Started], large_folder: Path, tmp_path: Path
):
    out, undisturbed = tmp_path / "out", tmp_path / "undisturbed"
    started = start("run", large_folder, out, environment=api.environment)
    processes = at_work(started, out, parts=2)
    [killed] = [path.parent.name for path in out.glob(".darkroom/runs/*/journal")]

    started.process.kill()
    started.process.communicate()
    eventually(lambda: gone(processes), 30)
    assert "left behind" in darkroom("status", out, environment=api.environment).out
    history = darkroom("history", out, environment=api.environment).out
    assert re.search(r"No run .* yet\.\nresume    [1-9]\d* images of 1 interrupted run are safe", history)
    damaged = journalled(out)[0]
    damaged.write_bytes(damaged.read_bytes()[:-10])

    ended = darkroom("run", large_folder, out, environment=api.environment)
    assert ended.code == 0, ended.err
    assert api.flow_run(killed)["state_type"] == "CRASHED"
    assert f"Flow run {run_id_of(out)} has taken over its work." in api.flow_run(killed)["state"]["message"]
    assert {task["state_type"] for task in api.task_runs(killed)} <= {"COMPLETED", "CRASHED"}
    warning = "1 damaged journal part of an interrupted run can't be read: its images are made again."
    assert f"damaged   {warning}" in ended.out
    assert warning in api.latest_summary(out)
    assert re.search(r"adopted +[1-9]\d* images that an interrupted run had finished", ended.out)
    assert "adopt finished images" in {task["name"] for task in api.task_runs(run_id_of(out))}
    assert darkroom("run", large_folder, undisturbed, environment=api.environment).code == 0
    assert files(out / "images") == files(undisturbed / "images")
    rows, expected = ([lasting(row) for row in manifest_rows(place).values()] for place in (out, undisturbed))
    assert rows == expected


def test_prefects_retry_of_a_failed_flow_finishes_the_run(
    api: Api, start: Callable[..., Started], large_folder: Path, tmp_path: Path
):
    source, out = tmp_path / "photos", tmp_path / "out"
    source.mkdir()
    retries = {"PREFECT_FLOWS_DEFAULT_RETRIES": "1", "PREFECT_FLOWS_DEFAULT_RETRY_DELAY_SECONDS": "10"}
    started = start("run", source, out, "--verbose", environment=api.environment | retries)
    waiting = {"flow_runs": {"state": {"name": {"any_": ["AwaitingRetry"]}}}}
    [flow_run] = eventually(lambda: api.post("flow_runs/filter", waiting))
    assert "The source holds no images" in flow_run["state"]["message"]

    shutil.copyfile(next(large_folder.iterdir()), source / "a.jpg")

    printed, errors = started.process.communicate(timeout=120)
    assert started.process.returncode == 0, errors
    assert "1 made, 0 failed" in printed
    assert "Traceback" not in printed + errors
    again = api.flow_run(flow_run["id"])
    assert (again["run_count"], again["name"]) == (2, flow_run["name"])
