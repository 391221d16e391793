"""Images that bring down their codec process fail alone, on any kind of cluster."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from harness import Api, Started, eventually, manifest_rows, run_id_of, running_cluster, workers

from darkroom.tasks.imaging.transform import transform
from darkroom.tasks.settings import Recipe
from tests.contents import files
from tests.poisoned import logged, poison, poisoned_environment
from tests.tasks.imaging.reference import jpeg, picture

IMAGES = 96
SHARDS = 8
START = """
from darkroom.flows.cli.commands import main
from darkroom.tasks import plan
plan.SHARD_SECONDS = (1e-9, 1e9)  # four shards for each worker, however small they are
main()
"""
IMPATIENT = "from darkroom.flows.runtime import workers; workers.NO_WORKER_SECONDS = 1"
QUICK = ("--max-image-seconds", "2", "--max-pixels", "1000000")


def number_in(shard: int, which: int) -> int:
    """Return the number of one of a shard's images."""
    return shard * IMAGES // SHARDS + which


def write_source(folder: Path, poisons: dict[int, str]) -> None:
    """Write small images; those whose numbers are in `poisons` are poison of that kind."""
    folder.mkdir()
    for number in range(IMAGES):
        data = poison(poisons[number], number) if number in poisons else jpeg(picture(40, 30, number))
        (folder / f"{number:02}.jpg").write_bytes(data)


def check(source: Path, out: Path, codes: dict[int, str]) -> None:
    """Check that the images in `codes` failed with these codes, and that all others have the right output."""
    rows = manifest_rows(out)
    assert len(rows) == IMAGES
    assert {name: row["error_code"] for name, row in rows.items() if row["status"] != "ok"} == {
        f"{number:02}.jpg": code for number, code in codes.items()
    }
    assert files(out / "images") == {
        name: transform((source / name).read_bytes(), Recipe(), 10**9).data
        for name, row in rows.items()
        if row["status"] == "ok"
    }


def left_of(started: Started) -> list[psutil.Process]:
    """Return the processes of a command that still run, its own included."""
    left = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(process.pid) == started.process.pid and process.status() != psutil.STATUS_ZOMBIE:
                left.append(process)
    return left


@pytest.fixture
def poisoned(tmp_path: Path, api: Api) -> dict[str, str]:
    return api.environment | poisoned_environment(tmp_path / "met")


def test_poison_of_every_kind_costs_only_itself(
    api: Api, poisoned: dict[str, str], start: Callable[..., Started], tmp_path: Path
):
    source, out = tmp_path / "source", tmp_path / "out"
    kinds = {
        number_in(0, 3): ("crash", "decode.crash"),
        number_in(0, 5): ("abort", "decode.crash"),
        number_in(1, 2): ("spin", "decode.timeout"),
        number_in(2, 2): ("sleep", "decode.timeout"),
        number_in(4, 2): ("eat", "decode.memory"),
        number_in(5, 2): ("overflow", "decode.memory"),
    }
    write_source(source, {number: kind for number, (kind, _) in kinds.items()})
    memory = ("--cluster-kwargs", '{"memory_limit": "700MB"}')

    started = start("run", source, out, "--workers", "2", *QUICK, *memory, environment=poisoned, code=START)

    processes = set()
    while started.process.poll() is None:
        with suppress(psutil.NoSuchProcess):
            processes |= {worker.pid for worker in workers(started.process)}
        time.sleep(0.05)
    printed, errors = started.process.communicate(timeout=240)
    assert started.process.returncode == 0, errors
    assert "90 made, 6 failed" in printed
    assert "Traceback" not in errors
    check(source, out, {number: code for number, (_, code) in kinds.items()})
    eventually(lambda: not left_of(started), 10)
    run_id = run_id_of(out)
    assert api.flow_run(run_id)["state_type"] == "COMPLETED"
    assert len(processes) == 2, "no worker was lost"
    tasks = api.task_runs(run_id)
    assert {task["state_type"] for task in tasks} == {"COMPLETED"}
    assert sum("shard" in task["name"] for task in tasks) == SHARDS


@pytest.mark.slow
def test_on_a_cluster_with_dasks_defaults_too(
    api: Api, poisoned: dict[str, str], start: Callable[..., Started], tmp_path: Path
):
    source, out = tmp_path / "source", tmp_path / "out"
    write_source(source, {number_in(0, 3): "crash"})

    with running_cluster(tmp_path, poisoned, "--nthreads", "2") as address:
        started = start("run", source, out, "--scheduler", address, environment=api.environment, code=START)
        _, errors = started.process.communicate(timeout=240)

    assert started.process.returncode == 0, errors
    check(source, out, {number_in(0, 3): "decode.crash"})
    assert {what for what, _ in logged(tmp_path / "met")} == {"crash"}
    assert {task["state_type"] for task in api.task_runs(run_id_of(out))} == {"COMPLETED"}


@pytest.mark.slow
def test_a_run_does_not_wait_for_ever_for_a_cluster_without_workers(
    api: Api, poisoned: dict[str, str], start: Callable[..., Started], tmp_path: Path
):
    source, out = tmp_path / "source", tmp_path / "out"
    write_source(source, {number_in(0, 3): "sleep"})

    with running_cluster(tmp_path, poisoned, "--nthreads", "1", "--no-nanny") as address:
        started = start("run", source, out, "--scheduler", address, environment=api.environment, code=IMPATIENT + START)
        eventually(lambda: logged(tmp_path / "met"))
        [(_, pid)] = logged(tmp_path / "met")
        psutil.Process(int(pid)).parent().parent().kill()  # codec process → codec server → worker
        _, errors = started.process.communicate(timeout=120)

    assert started.process.returncode == 1
    assert "has had no worker for 1 seconds" in errors
    assert "Traceback" not in errors
