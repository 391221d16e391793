"""Map a task over shards on Dask workers, showing progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from darkroom.flows.runtime.cluster import dask_runner
from darkroom.flows.runtime.progress import Progress, R, shown
from darkroom.flows.runtime.signals import raise_lost
from darkroom.flows.runtime.window import ShardFailure, run_shards
from darkroom.tasks.dataset.shard import ShardRef
from darkroom.tasks.settings import Compute

if TYPE_CHECKING:
    from prefect import Task


def map_shards(
    task: Task[[ShardRef], R],
    shards: Sequence[ShardRef],
    compute: Compute,
    progress: Progress[R],
    *checks: Callable[[], None],
) -> None:
    """Run a task for every shard, and record progress, results and failures.

    Args:
        task: processes a shard; its parameter is called `shard`.
        shards: at least one.
        compute: the cluster to run on.
        progress: where all is recorded.
        checks: called several times a second; what they raise ends the run.
    """
    with dask_runner(compute) as runner, shown(progress, shards[0].destination) as show:

        def tick() -> None:
            for call in (show, raise_lost, *checks):
                call()

        try:
            for outcome in run_shards(runner, task, shards, progress.on_message, tick):
                if isinstance(outcome, ShardFailure):
                    shard = outcome.shard.label.capitalize()
                    progress.failures.append(f"{shard} could not be worked: {outcome.reason}")
                else:
                    progress.finish(outcome)
        finally:
            progress.ended = time.monotonic()
