"""Runs on clusters that are not the local one: workers that come and go, and a real Slurm."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from distributed import Client
from harness import Api, Started, darkroom, eventually, journalled, manifest_rows, running_cluster

from tests.needs import skip_or_fail
from tests.slurm import slurm_node


def test_a_cluster_that_adapts_begins_without_a_worker(api: Api, folder: Path, tmp_path: Path):
    cluster = json.dumps({"n_workers": 0, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": None})
    adapt = json.dumps({"minimum": 0, "maximum": 2, "interval": "200ms"})

    ended = darkroom(
        "run", folder, tmp_path / "out", "--cluster-class", "distributed.LocalCluster", "--cluster-kwargs", cluster,
        "--adapt-kwargs", adapt, "--max-failure-ratio", "1", environment=api.environment,
    )  # fmt: skip

    assert ended.code == 0, ended.err
    assert "24 made, 2 failed" in ended.out


@pytest.mark.slow
def test_workers_come_and_are_retired_in_the_middle(
    api: Api, start: Callable[..., Started], large_folder: Path, tmp_path: Path
):
    out = tmp_path / "out"
    with running_cluster(tmp_path, api.environment) as address, Client(address, set_as_default=False) as client:
        started = start("run", large_folder, out, "--scheduler", address, environment=api.environment)
        [first] = eventually(lambda: list(client.nthreads()))
        eventually(lambda: journalled(out))
        command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-dashboard", "--nthreads", "1"]
        late = subprocess.Popen(command, env=api.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            [second] = eventually(lambda: client.nthreads().keys() - {first})
            client.retire_workers([first], close_workers=True, remove=True)
            _, errors = started.process.communicate(timeout=120)
        finally:
            late.terminate()
            late.wait()
    assert second
    assert started.process.returncode == 0, errors
    rows = manifest_rows(out).values()
    assert [row["status"] for row in rows] == ["ok"] * 200
    assert len({row["worker"] for row in rows}) == 2


@pytest.mark.slow
def test_slurm_runs_the_workers(api: Api, folder: Path, tmp_path: Path):
    if not find_spec("dask_jobqueue"):  # importing it would replace this process's handler of Ctrl-C
        skip_or_fail("dask_jobqueue is not installed")
    cluster = {"cores": 1, "processes": 1, "memory": "1GB", "n_workers": 2, "log_directory": f"{tmp_path}/logs"}
    cluster["scheduler_options"] = {"host": "127.0.0.1", "dashboard_address": None}
    with slurm_node() as environment:
        ended = darkroom(
            "run", folder, tmp_path / "out", "--cluster-class", "dask_jobqueue.SLURMCluster", "--cluster-kwargs",
            json.dumps(cluster), "--max-failure-ratio", "1", environment=api.environment | environment,
        )  # fmt: skip
        jobs = list((tmp_path / "logs").glob("dask-worker-*.err"))

    assert ended.code == 0, ended.err
    assert "24 made, 2 failed" in ended.out
    assert len(jobs) == 2
