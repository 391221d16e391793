"""A run that hangs, or loses its lease, ends with an error."""

from __future__ import annotations

import fcntl
import json
import os
import signal
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest
from harness import CHECKOUT, Api, Started, darkroom, eventually, family, gone, has_begun, manifest_rows, save, workers

from darkroom.flows.runtime.watchdog import STALL_SECONDS, stall_seconds
from darkroom.tasks.dataset.lease import read_lease
from darkroom.tasks.settings import Rules
from data.generate import photo
from tests.places import destination_at

HASTY = """
import os
from darkroom.tasks.dataset import lease
lease.HEARTBEAT_SECONDS = 0.2
from darkroom.flows.runtime import watchdog
watchdog.STALL_SECONDS, watchdog.END_SECONDS = map(float, os.environ["TEST_STALL_AND_END"].split())
watchdog.stall_seconds = lambda rules: watchdog.STALL_SECONDS
from darkroom.flows.cli.commands import main
main()
"""


LIMITS = "TEST_STALL_AND_END"


@pytest.fixture
def hanging(api: Api) -> dict[str, str]:
    """Return an environment in which reads and writes of files with certain names hang."""
    paths = [CHECKOUT / "tests/faults", api.environment["PYTHONPATH"]]
    return api.environment | {"PYTHONPATH": os.pathsep.join(map(str, paths))}


def write_source(folder: Path, hangs: bool) -> None:
    for number in range(12):
        save(folder / f"{number}.jpg", photo(160, 120, seed=number), quality=90)
    if hangs:
        save(folder / "hang-write.jpg", photo(160, 120, seed=99), quality=90)


def begun(started: Started) -> list[psutil.Process]:
    """Wait until a worker has begun with a shard, and return the run's processes."""
    eventually(lambda: has_begun(started))
    assert started.process.poll() is None, started.process.communicate()
    return family(started.process)


def of_flow(api: Api, out: Path) -> dict[str, str]:
    runs = api.post("flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 1})
    return next(run for run in runs if run["parameters"]["destination"] == str(out))


def test_the_limit_is_longer_than_anything_that_the_rules_allow():
    assert stall_seconds(Rules(max_image_seconds=1, max_read_seconds=1, max_pixels=1)) == STALL_SECONDS
    slow = Rules(max_image_seconds=3600, max_read_seconds=600, max_pixels=100_000_000)
    assert stall_seconds(slow) > 9 * 600 + 2 * (3600 + 4 * 3600)


@pytest.mark.slow
def test_writes_that_hang_end_the_run_and_the_next_one_completes_it_until_its_verification_loses_its_lease(
    api: Api, hanging: dict[str, str], start: Callable[..., Started], tmp_path: Path
):
    source, out = tmp_path / "photos", tmp_path / "out"
    write_source(source, hangs=True)
    started = start("run", source, out, "--workers", "1", environment=hanging | {LIMITS: "2 120"}, code=HASTY)
    processes = begun(started)

    _, errors = started.process.communicate(timeout=60)

    assert started.process.returncode == 1
    assert "No progress since 20" in errors
    assert "Storage or workers hang" in errors
    # Not "Traceback": Dask's callback of garbage collections now and then fails with one.
    assert "StalledError" not in errors
    eventually(lambda: gone(processes), 10)
    assert read_lease(destination_at(out)) is None
    run = of_flow(api, out)
    assert run["state_type"] == "FAILED"
    assert "No progress since" in run["state"]["message"]

    ended = darkroom("run", source, out, environment=api.environment)

    assert ended.code == 0, ended.err
    assert len(manifest_rows(out)) == 13
    check_loss(hanging | {"TEST_HANGING_READ": "0.jpg"}, start, "verify", out)


def test_a_stalled_run_whose_end_hangs_too_is_killed(
    api: Api, start: Callable[..., Started], large_folder: Path, tmp_path: Path
):
    out = tmp_path / "out"
    environment = api.environment | {LIMITS: "10 2"}
    started = start("run", large_folder, out, "--workers", "1", environment=environment, code=HASTY)
    processes = begun(started)
    with (out / ".darkroom/lease.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # so that releasing the lease hangs
        for worker in workers(started.process):
            worker.send_signal(signal.SIGSTOP)

        _, errors = started.process.communicate(timeout=60)

    assert started.process.returncode == 1
    assert "No progress since" in errors
    assert "did not end by itself either" in errors
    eventually(lambda: gone(processes), 10)


def test_a_run_whose_lease_is_taken_over_ends_at_once(
    api: Api, start: Callable[..., Started], large_folder: Path, tmp_path: Path
):
    check_loss(api.environment, start, "run", large_folder, tmp_path / "out")


def check_loss(environment: dict[str, str], start: Callable[..., Started], *command: str | Path) -> None:
    """Check that a run or verification whose lease is taken over ends at once."""
    out = Path(command[-1])
    started = start(*command, "--workers", "1", environment=environment | {LIMITS: "120 120"}, code=HASTY)
    begun(started)
    taken = replace(read_lease(destination_at(out)), process="elsewhere|1|1", since=1)
    with (out / ".darkroom/lease.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (out / "taken.json").write_text(json.dumps(asdict(taken)))
        (out / "taken.json").rename(out / ".darkroom/lease.json")  # whole at once: the run reads it without the lock

    _, errors = started.process.communicate(timeout=60)

    assert started.process.returncode == 1
    assert "was taken over by run" in errors
    assert "No progress since" not in errors
    assert read_lease(destination_at(out)) == taken


def test_exit_handlers_that_hang_do_not_keep_the_command_from_exiting(api: Api, start: Callable[..., Started]):
    code = """
import atexit, time
from darkroom.flows.cli import commands as cli
cli.LEAVE_SECONDS = 0.1
atexit.register(time.sleep, 10_000)
cli._exit_code = lambda: 7
cli.main()
"""
    assert start(environment=api.environment, code=code).process.wait(30) == 7
