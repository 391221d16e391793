"""A flow whose tasks really bring their workers down: `python -m tests.flows.runtime.deadly FOLDER`.

Three windows of shards, one after the other, on a cluster of one worker. The folder of each has `outcomes`, the results
of its shards as JSON, and `worked`, with a line for each attempt that a worker began.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from distributed import Client, get_worker
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.runtime import task_run
from prefect_dask import DaskTaskRunner

from darkroom.flows.runtime import window
from darkroom.flows.runtime.cluster import dask_runner
from darkroom.flows.runtime.window import ShardFailure, run_shards
from darkroom.tasks.dataset.shard import ShardRef, report_progress, shard_refs
from darkroom.tasks.settings import Compute
from tests.places import destination_at

KINDS = ("fine", "fine", "killed once", "killed", "fine", "restarted once", "fine")
"""What happens to the shards of the first window."""


@task(task_run_name="{shard.label}")
def work(shard: ShardRef) -> int:
    folder = Path(shard.destination)
    note(folder, shard)
    report_progress(shard)
    time.sleep(0.5)  # until this event has reached the flow
    kind = KINDS[shard.number]
    if kind == "killed once" and shard.attempt == 1:
        while len(read_outcomes(folder)) < 2:  # until there are results that must not be computed again
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "killed":
        wait_until_known()
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "restarted once" and shard.attempt == 1:
        wait_until_known()
        with Client(get_worker().scheduler.address, set_as_default=False) as other:
            other.restart(wait_for_workers=False)
        time.sleep(60)
    return shard.number


@task(task_run_name="{shard.label}")
def never_begin(shard: ShardRef) -> int:
    note(Path(shard.destination), shard)
    os.kill(os.getpid(), signal.SIGKILL)
    return shard.number


def wait_until_known() -> None:
    """Wait until the server knows this task run, from an event that arrives some time after its start."""
    with get_client(sync_client=True) as client:
        while True:
            with suppress(ObjectNotFound):
                if client.read_task_run(task_run.id).name == task_run.name:
                    return
            time.sleep(0.05)


def fail_to_name() -> str:
    """Fail in Prefect's engine, outside the task."""
    raise RuntimeError("out of the blue")


@task(task_run_name=fail_to_name)
def never_run(shard: ShardRef) -> int:
    return shard.number


def note(folder: Path, shard: ShardRef) -> None:
    with (folder / "worked").open("a") as log:
        log.write(f"{shard.number} {shard.attempt}\n")


def read_outcomes(folder: Path) -> dict[str, str]:
    """Return the results of the shards by number, in order."""
    return json.loads((folder / "outcomes").read_text())


def write_outcomes(folder: Path, outcomes: dict[int, str]) -> None:
    (folder / "outcomes.new").write_text(json.dumps(outcomes))
    (folder / "outcomes.new").rename(folder / "outcomes")


def run(runner: DaskTaskRunner, kind: Callable[[ShardRef], int], folder: Path, shards: int) -> None:
    """Run a task for shards of one image each."""
    workspace = destination_at(folder).workspace(folder.name)
    outcomes: dict[int, str] = {}
    write_outcomes(folder, outcomes)
    for outcome in run_shards(runner, kind, shard_refs(workspace, [1] * shards), lambda _: None, lambda: None):
        if isinstance(outcome, ShardFailure):
            outcomes[outcome.shard.number] = outcome.reason
        else:
            outcomes[outcome] = "done"
        write_outcomes(folder, outcomes)


@flow(flow_run_name="deadly")
def deadly(folder: Path) -> None:
    with dask_runner(Compute(workers=1)) as runner:
        run(runner, work, folder / "mixed", len(KINDS))

        window.MAX_LOST_UNBEGUN, window.MAX_FRUITLESS_ATTEMPTS = 1, 1
        run(runner, never_begin, folder / "unbegun", 1)

        run(runner, never_run, folder / "unrunnable", 1)


if __name__ == "__main__":
    deadly(Path(sys.argv[1]))
