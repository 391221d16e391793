"""Workers of a real cluster that have other versions than the flow."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from distributed import Client
from harness import Api, clean_environment, darkroom, eventually, running_cluster

from darkroom.flows.runtime import versions
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
    """Return a function that writes a preload script of workers, and returns its path."""

    def write(code: str) -> str:
        file = tmp_path / "preload.py"
        file.write_text(code)
        return str(file)

    return write


@pytest.mark.slow
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
        eventually(lambda: workers.poll() or workers.threads)
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


def test_a_stopped_worker_delays_no_other_and_is_compared_when_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(versions, "ANSWER_SECONDS", 2.0)
    environment = clean_environment(tmp_path)
    with (
        running_cluster(tmp_path, environment, "--nthreads", "1", "--nworkers", "2") as address,
        Client(address, set_as_default=False) as client,
    ):
        eventually(lambda: len(client.nthreads()) == 2)
        stopped, other = client.run(own_versions)
        process = psutil.Process(client.run(os.getpid, workers=[stopped])[stopped])
        process.suspend()
        try:
            workers = Workers(client)
            begun = time.monotonic()
            workers.poll()
            assert time.monotonic() - begun < 20, "it does not answer within 2 s"
            assert workers.allowed() == [other]
            assert workers.problem_of(stopped) == "has not reported its versions yet"
        finally:
            process.resume()
        eventually(lambda: workers.poll() or workers.threads == 2)
        assert workers.allowed() is None


def test_a_scheduler_without_darkroom_is_named(api: Api, folder: Path, tmp_path: Path, preload: Callable[[str], str]):
    lacking = {"DASK_DISTRIBUTED__SCHEDULER__PRELOAD": json.dumps([preload(PRELOADS["lacks it"][0])])}
    with running_cluster(tmp_path, api.environment | lacking) as address:
        ended = darkroom("run", folder, tmp_path / "out", "--scheduler", address, environment=api.environment)
    assert ended.code == 1
    assert f"--scheduler {address} can't import Darkroom" in ended.err
    assert "docs/clusters.md" in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "out/images").exists()


def test_all_compared_libraries_are_installed():
    assert "missing" not in own_versions().values()
