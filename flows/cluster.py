"""Dask: which cluster, the window of shards in flight, and what a lost worker means."""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.forkserver
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from tasks.recipe import Compute

if TYPE_CHECKING:
    from uuid import UUID

    import distributed
    from prefect_dask import DaskTaskRunner
    from prefect_dask.task_runners import PrefectDaskFuture

    from tasks.resize import ShardRef, ShardResult

PRELOADED = ["flows.worker"]
"""Imported once by the process that workers are forked from; it must start no thread and open no client."""

SHARDS_PER_WORKER_IN_FLIGHT = 2
TICK_SECONDS = 0.25
MAX_ATTEMPTS = 3

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
}
"""A worker process is one core's worth of work: more threads would only get in each other's way."""


def local_workers(compute: Compute) -> int:
    """Return the number of worker processes of a local cluster: one per core that this process may use."""
    if compute.workers:
        return compute.workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def warm_up() -> None:
    """Begin, in a process beside this one, to import what workers need, so that they start at once.

    Only on Linux: elsewhere forking after imports isn't safe, and workers are spawned.
    """
    if sys.platform == "linux":
        before = dict(os.environ)
        os.environ.update(ONE_THREAD)
        multiprocessing.set_forkserver_preload(PRELOADED)
        multiprocessing.forkserver.ensure_running()
        for name in ONE_THREAD.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def dask_runner(compute: Compute) -> Iterator[DaskTaskRunner]:
    """Provide the task runner that the compute settings ask for; its cluster starts with the first task."""
    import dask
    from prefect_dask import DaskTaskRunner

    with (
        _only_errors("distributed"),
        dask.config.set(_dask_config(compute)),
        DaskTaskRunner(**_runner_arguments(compute)) as runner,
    ):
        yield runner


@contextmanager
def _only_errors(name: str) -> Iterator[None]:
    """Keep a library's running commentary out of the run's output."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _dask_config(compute: Compute) -> dict[str, Any]:
    config: dict[str, Any] = {
        # A lost worker is reported at once, and its shard continued here, instead of running it into
        # whatever killed the worker on three more of them.
        "distributed.scheduler.allowed-failures": 0,
        "distributed.nanny.environ": ONE_THREAD,
    }
    if not compute.cluster_class and sys.platform == "linux":
        warm_up()
        config["distributed.worker.multiprocessing-method"] = "forkserver"
    return config


def _runner_arguments(compute: Compute) -> dict[str, Any]:
    if compute.scheduler:
        return {"address": compute.scheduler}
    if compute.cluster_class:
        return {"cluster_class": compute.cluster_class, "cluster_kwargs": compute.cluster_kwargs}
    return {
        "cluster_kwargs": {
            "n_workers": local_workers(compute),
            "threads_per_worker": 1,
            "processes": True,
            # tcp:// has no authentication: nothing of a local cluster listens beyond this machine.
            "host": "127.0.0.1",
            "dashboard_address": "127.0.0.1:0",
            "worker_dashboard_address": "127.0.0.1:0",
            "silence_logs": logging.ERROR,
            **compute.cluster_kwargs,
        }
    }


def run_shards(
    runner: DaskTaskRunner,
    shards: Sequence[ShardRef],
    hear: Callable[[dict[str, int]], None],
    tick: Callable[[], None],
) -> Iterator[ShardResult | ShardFailure]:
    """Run every shard's task, a few per worker at a time, and yield what came of it as it ends.

    A shard whose worker died, or whose task failed, is given to another attempt, which goes on where the
    journal ends; after `MAX_ATTEMPTS` it is yielded as a failure.

    Args:
        runner: where the tasks run.
        shards: the shards.
        hear: called, in another thread, with the progress that a worker tells.
        tick: called several times a second; what it raises ends the run.
    """
    from tasks.resize import PROGRESS_TOPIC, resize_shard

    client: Any = runner.client
    client.subscribe_topic(PROGRESS_TOPIC, lambda event: hear(event[1]))
    waiting = deque(shards)
    running: dict[distributed.Future[Any], tuple[ShardRef, PrefectDaskFuture[ShardResult]]] = {}
    try:
        while waiting or running:
            window = SHARDS_PER_WORKER_IN_FLIGHT * max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
            while waiting and len(running) < window:
                shard = waiting.popleft()
                future = runner.submit(resize_shard, {"shard": shard})
                running[future.wrapped_future] = (shard, future)
            for done in _wait(client, list(running)):
                shard, future = running.pop(done)
                outcome = _outcome(shard, future)
                # While a result is held, Dask would compute it again if the worker that has it died.
                done.release()
                if not isinstance(outcome, ShardFailure):
                    yield outcome
                elif not shard.was_begun():
                    # Lost in the queue of a worker that died of something else.
                    waiting.append(shard)
                elif shard.attempt < MAX_ATTEMPTS:
                    waiting.append(shard.model_copy(update={"attempt": shard.attempt + 1}))
                else:
                    yield outcome
            tick()
    finally:
        client.cancel(list(running), force=True)
        client.unsubscribe_topic(PROGRESS_TOPIC)


@dataclass(frozen=True, slots=True)
class ShardFailure:
    """A shard that could not be worked, and why."""

    shard: ShardRef
    reason: str


def _wait(client: distributed.Client, futures: list[distributed.Future[Any]]) -> list[distributed.Future[Any]]:
    """Return the futures that have ended, after waiting a tick for the first of them."""
    import distributed

    with client.as_current():
        try:
            return list(distributed.wait(futures, timeout=TICK_SECONDS, return_when="FIRST_COMPLETED").done)
        except TimeoutError:
            return []


def _outcome(shard: ShardRef, future: PrefectDaskFuture[ShardResult]) -> ShardResult | ShardFailure:
    """Return what came of a task that has ended, whatever way it ended."""
    try:
        state = future.wrapped_future.result()
    except Exception as error:  # noqa: BLE001 - whatever Dask says of a task it lost
        reason = f"its worker was lost ({type(error).__name__})"
        _mark_crashed(future.task_run_id, f"{shard.label}: {reason}")
        return ShardFailure(shard, reason)
    if state.is_completed():
        result: ShardResult = state.result(_sync=True)
        return result
    return ShardFailure(shard, state.message or state.name)


def _mark_crashed(task_run_id: UUID, message: str) -> None:
    """Tell Prefect that a task run is dead: nobody else does, and it would stay Running in the UI."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.states import Crashed

    with get_client(sync_client=True) as client:
        try:
            client.set_task_run_state(task_run_id, Crashed(message=message), force=True)
        except PrefectHTTPStatusError as error:
            # A task that was lost before it began is one that the server has never heard of.
            if error.response.status_code != HTTPStatus.NOT_FOUND:
                raise
