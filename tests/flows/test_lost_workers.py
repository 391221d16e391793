"""Workers that die are replaced, and their shards get another attempt."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import (
    Api,
    Started,
    at_work,
    check_done_again,
    eventually,
    manifest_rows,
    run_id_of,
    stopped_within_a_shard,
    workers,
)

from tests.contents import files


def test_the_shard_of_a_lost_worker_is_done_by_another(
    api: Api, start: Callable[..., Started], large_folder: Path, tmp_path: Path
):
    out = tmp_path / "out"
    started = start("run", large_folder, out, "--workers", "1", environment=api.environment)
    at_work(started, out)
    [worker] = workers(started.process)
    eventually(lambda: stopped_within_a_shard(worker, out, api))

    worker.kill()

    printed, errors = started.process.communicate(timeout=120)
    assert started.process.returncode == 0, errors
    assert "200 made, 0 failed" in printed
    run_id = run_id_of(out)
    assert api.flow_run(run_id)["state_type"] == "COMPLETED"
    check_done_again(api, run_id)
    assert sorted(manifest_rows(out)) == sorted(path.name for path in large_folder.iterdir())


def test_a_worker_that_is_lost_while_its_cluster_starts_is_replaced(
    api: Api, start: Callable[..., Started], folder: Path, tmp_path: Path
):
    out = tmp_path / "out"
    started = start("run", folder, out, "--workers", "1", "--max-failure-ratio", "1", environment=api.environment)
    [worker] = eventually(lambda: workers(started.process))

    worker.kill()

    _, errors = started.process.communicate(timeout=120)
    assert started.process.returncode == 0, errors
    assert manifest_rows(out).keys() == files(folder).keys() - {"notes.txt", ".hidden.jpg"}


@pytest.mark.slow
def test_a_worker_that_dask_gives_up_is_replaced(
    api: Api, start: Callable[..., Started], large_folder: Path, tmp_path: Path
):
    """Dask gives up a worker whose process can't be started."""
    out, no_room, tried, preload = (tmp_path / name for name in ("out", "no-room", "tried", "preload.py"))
    preload.write_text(f"""
from pathlib import Path
if Path({str(no_room)!r}).exists():
    Path({str(tried)!r}).touch()
    raise OSError("no room")
""")
    options = ["--cluster-kwargs", json.dumps({"n_workers": 1, "preload": [str(preload)]})]
    started = start("run", large_folder, out, *options, environment=api.environment)
    at_work(started, out)

    no_room.touch()
    workers(started.process)[0].kill()
    eventually(tried.exists)
    no_room.unlink()

    _, errors = started.process.communicate(timeout=120)
    assert started.process.returncode == 0, errors
    assert "Traceback" not in errors
    assert len(manifest_rows(out)) == 200


@pytest.mark.slow
def test_workers_that_are_slow_to_come_back_are_not_given_up_for_good(
    api: Api, start: Callable[..., Started], large_folder: Path, tmp_path: Path
):
    """With another cluster class, Dask gives up workers that are not back in time, here at once."""
    out = tmp_path / "out"
    environment = api.environment | {"DASK_DISTRIBUTED__DEPLOY__LOST_WORKER_TIMEOUT": "1ms"}
    cluster = ["--cluster-class", "distributed.LocalCluster", "--cluster-kwargs", json.dumps({"n_workers": 1})]
    started = start("run", large_folder, out, *cluster, environment=environment)
    [worker] = [process for process in at_work(started, out) if "spawn_main" in " ".join(process.cmdline())]

    worker.kill()

    _, errors = started.process.communicate(timeout=120)
    assert started.process.returncode == 0, errors
    assert len(manifest_rows(out)) == 200
