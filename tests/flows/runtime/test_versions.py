"""Workers of a real cluster that have other versions than the flow."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from distributed import Client
from harness import Api, clean_environment, darkroom, eventually, running_cluster

from darkroom.flows.runtime.versions import find_differences, own_versions
from darkroom.flows.runtime.workers import Workers
from darkroom.tasks.errors import ClusterError

PRELOADS = {
    "lacks it": ("import sys; sys.modules['darkroom'] = None", r"^can't import Darkroom \(.*darkroom.*\)$"),
    "other Python": (
        "import platform; platform.python_version_tuple = lambda: ('3', '9', '1')",
        r"^has other versions than the flow: Python 3\.9 instead of 3\.\d+$",
    ),
    "other code": (
        "import darkroom.flows.runtime.versions as v; v._code_digest = lambda: 'other'",
        r"^has other versions than the flow: Darkroom's code$",
    ),
    "other libraries": (
        "import darkroom.flows.runtime.versions as v; v._version = lambda name: 'missing' if name == 'pillow' else '0'",
        r"^has other versions than the flow: .* 0 instead of .*, \d+ more$",
    ),
}


@pytest.fixture
def preload(tmp_path: Path) -> Callable[[str], str]:
    """Return a script for a worker to begin with."""

    def write(code: str) -> str:
        file = tmp_path / "preload.py"
        file.write_text(code)
        return str(file)

    return write


@pytest.mark.parametrize("name", PRELOADS)
def test_a_difference_is_named(tmp_path: Path, preload: Callable[[str], str], name: str):
    code, expected = PRELOADS[name]
    options = ("--nthreads", "1", "--no-nanny", "--preload", preload(code))
    with (
        running_cluster(tmp_path, clean_environment(tmp_path), *options) as address,
        Client(address, set_as_default=False) as client,
    ):
        [worker] = eventually(lambda: list(client.scheduler_info()["workers"]))
        with pytest.raises(ClusterError, match=r"^No worker of the Dask cluster can take shards: worker tcp://"):
            Workers(client).poll()
        differences = find_differences(client, [worker])
    assert differences.keys() == {worker}
    assert re.match(expected, differences[worker])


def test_only_workers_like_the_flow_get_shards(tmp_path: Path, preload: Callable[[str], str]):
    environment = clean_environment(tmp_path)
    with running_cluster(tmp_path, environment) as address, Client(address, set_as_default=False) as client:
        [first] = eventually(lambda: list(client.scheduler_info()["workers"]))
        workers = Workers(client)
        workers.poll()
        assert (workers.threads, workers.allowed()) == (1, None)
        command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-nanny", "--no-dashboard"]
        command += ["--nthreads", "3", "--preload", preload(PRELOADS["lacks it"][0])]
        other = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            eventually(lambda: len(client.scheduler_info()["workers"]) == 2)
            eventually(lambda: workers.poll() or len(workers.known) == 2)
            assert (workers.threads, workers.allowed()) == (1, [first])
            [reason] = {workers.problem_of(address) for address in workers.known} - {""}
            assert reason.startswith("can't import Darkroom")
        finally:
            other.terminate()
            other.wait()


def test_a_run_is_refused_before_it_reads_any_image(
    api: Api, folder: Path, tmp_path: Path, preload: Callable[[str], str]
):
    options = ("--nthreads", "1", "--no-nanny", "--preload", preload(PRELOADS["other libraries"][0]))
    with running_cluster(tmp_path, api.environment, *options) as address:
        ended = darkroom("run", folder, tmp_path / "out", "--scheduler", address, environment=api.environment)
    assert ended.code == 1
    assert "has other versions than the flow" in ended.err
    assert "docs/clusters.md" in ended.err
    assert "Traceback" not in ended.err
    assert not os.path.exists(tmp_path / "out/images")


def test_all_that_is_compared_is_installed_here():
    assert "missing" not in own_versions().values()
