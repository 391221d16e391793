"""Dask: which cluster, the window of shards in flight, and what a lost worker means."""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.forkserver
import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flows.server import light_tls
from tasks.recipe import Compute

if TYPE_CHECKING:
    from uuid import UUID

    import distributed
    from distributed import LocalCluster
    from prefect_dask import DaskTaskRunner
    from prefect_dask.task_runners import PrefectDaskFuture

    from tasks.resize import ShardRef, ShardResult

WORKER_MODULE = "flows.worker"
"""Imported once by the process that workers are forked from; it must start no thread and open no client."""

_early_cluster: ContextVar[Future[LocalCluster] | None] = ContextVar("early_cluster", default=None)

SHARDS_PER_WORKER_IN_FLIGHT = 2
TICK_SECONDS = 0.5
MAX_ATTEMPTS = 3
MAX_LOST_UNBEGUN = 5

WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
"""A worker process is one core's worth of work: more threads would only get in each other's way. The
allocator that comes with Arrow starts one as it is imported, which must not happen before a fork."""


def local_workers(compute: Compute) -> int:
    """Return the number of worker processes of a local cluster: one per core that this process may use."""
    if compute.workers:
        return compute.workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_local(compute: Compute) -> bool:
    """Say whether the run brings its own cluster on this machine."""
    return not (compute.scheduler or compute.cluster_class)


def warm_up() -> None:
    """Begin, in a process beside this one, to import what workers need, so that they start at once.

    Only on Linux: elsewhere forking after imports isn't safe, and workers are spawned.
    """
    if sys.platform == "linux":
        before = dict(os.environ)
        os.environ.update(WORKER_ENVIRONMENT)
        multiprocessing.set_forkserver_preload([WORKER_MODULE])
        multiprocessing.forkserver.ensure_running()
        for name in WORKER_ENVIRONMENT.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def dask_runner(compute: Compute) -> Iterator[DaskTaskRunner]:
    """Provide the task runner that the compute settings ask for, on a cluster that is there or starts now."""
    from prefect_dask import DaskTaskRunner

    with ExitStack() as stack:
        stack.enter_context(_only_errors("distributed"))
        if compute.scheduler:
            runner = DaskTaskRunner(address=compute.scheduler)
        elif compute.cluster_class:
            runner = DaskTaskRunner(cluster_class=compute.cluster_class, cluster_kwargs=compute.cluster_kwargs)
        else:
            stack.enter_context(light_tls())
            early = _early_cluster.get()
            runner = DaskTaskRunner(early.result() if early else stack.enter_context(_local_cluster(compute)))
        yield stack.enter_context(runner)


@contextmanager
def early_cluster(compute: Compute) -> Iterator[None]:
    """Start the cluster beside what else there is to do before a run that is sure to need it."""
    if not is_local(compute):
        yield
        return
    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        starting = pool.submit(stack.enter_context, _local_cluster(compute))
        token = _early_cluster.set(starting)
        try:
            yield
        finally:
            _early_cluster.reset(token)
            wait([starting])


@contextmanager
def _local_cluster(compute: Compute) -> Iterator[LocalCluster]:
    import dask
    from distributed import LocalCluster

    arguments = {
        "n_workers": local_workers(compute),
        "threads_per_worker": 1,
        "processes": True,
        # tcp:// has no authentication: nothing of a local cluster listens beyond this machine.
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",
        "worker_dashboard_address": "127.0.0.1:0",
        "silence_logs": logging.ERROR,
    }
    config: dict[str, Any] = {
        # A lost worker is reported at once, and its shard continued here, instead of running it into
        # whatever killed the worker on three more of them.
        "distributed.scheduler.allowed-failures": 0,
        "distributed.nanny.environ": WORKER_ENVIRONMENT,
        "distributed.worker.preload": [WORKER_MODULE],
        # Dask's own profiler stops every worker a hundred times a second to look at it.
        "distributed.worker.profile.enabled": False,
    }
    if sys.platform == "linux":
        warm_up()
        config["distributed.worker.multiprocessing-method"] = "forkserver"
    with (
        _only_errors("distributed"),
        dask.config.set(config),
        LocalCluster(**arguments | compute.cluster_kwargs) as cluster,
    ):
        yield cluster


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


@dataclass(frozen=True, slots=True)
class ShardFailure:
    """A shard that could not be worked, and why."""

    shard: ShardRef
    reason: str


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
    from tasks.resize import PROGRESS_TOPIC

    client: Any = runner.client
    client.subscribe_topic(PROGRESS_TOPIC, lambda event: hear(event[1]))
    window = _Window(runner, deque(shards))
    try:
        while window.waiting or window.running:
            window.fill()
            yield from window.collect()
            tick()
    finally:
        client.cancel(list(window.running), force=True)
        client.unsubscribe_topic(PROGRESS_TOPIC)
        for task_run_id, message in window.unknown:
            _mark_crashed(task_run_id, message)


@dataclass(slots=True)
class _Window:
    """The shards in flight: enough that no worker waits, few enough that no scheduler drowns."""

    runner: DaskTaskRunner
    waiting: deque[ShardRef]
    running: dict[distributed.Future[Any], tuple[ShardRef, PrefectDaskFuture[ShardResult]]] = field(
        default_factory=dict
    )
    lost_unbegun: Counter[int] = field(default_factory=Counter)
    """By shard: how often it was lost in the queue of a worker that died of something else."""

    unknown: list[tuple[UUID, str]] = field(default_factory=list)
    """Lost task runs that the server had not heard of yet, and what to tell it."""

    def fill(self) -> None:
        """Submit shards until there are enough in flight."""
        from tasks.resize import resize_shard

        if not self.waiting:
            return
        workers = len(self.runner.client.scheduler_info(n_workers=-1)["workers"])
        while self.waiting and len(self.running) < SHARDS_PER_WORKER_IN_FLIGHT * max(1, workers):
            shard = self.waiting.popleft()
            future = self.runner.submit(resize_shard, {"shard": shard})
            self.running[future.wrapped_future] = (shard, future)

    def collect(self) -> Iterator[ShardResult | ShardFailure]:
        """Yield what came of the shards that have ended, after waiting a tick for the first of them."""
        for done in _ended(self.runner.client, list(self.running)):
            shard, future = self.running.pop(done)
            outcome = self._outcome(shard, future)
            # While a result is held, Dask would compute it again if the worker that has it died.
            done.release()
            if outcome:
                yield outcome

    def _outcome(self, shard: ShardRef, future: PrefectDaskFuture[ShardResult]) -> ShardResult | ShardFailure | None:
        """Return what came of a task that has ended; None if its shard waits for another attempt."""
        import distributed

        try:
            state = future.wrapped_future.result()
        except distributed.KilledWorker as error:
            return self._lost(shard, future.task_run_id, f"{shard.label}: its worker was lost ({error})")
        except Exception as error:  # noqa: BLE001 - whatever a worker says that could not even load the task
            return ShardFailure(
                shard,
                f"a worker could not load the task ({type(error).__name__}: {error}). Install the same Darkroom, "
                "from the same requirements.lock, on the scheduler and every worker.",
            )
        if state.is_completed():
            result: ShardResult = state.result(_sync=True)
            return result
        return self._again(shard, state.message or state.name)

    def _lost(self, shard: ShardRef, task_run_id: UUID, message: str) -> ShardFailure | None:
        if not _mark_crashed(task_run_id, message):
            self.unknown.append((task_run_id, message))
        if not shard.was_begun() and self.lost_unbegun[shard.number] < MAX_LOST_UNBEGUN:
            self.lost_unbegun[shard.number] += 1
            self.waiting.append(shard)
            return None
        return self._again(shard, "its worker was lost, which is most often a lack of memory")

    def _again(self, shard: ShardRef, reason: str) -> ShardFailure | None:
        if shard.attempt >= MAX_ATTEMPTS:
            return ShardFailure(shard, reason)
        self.waiting.append(shard.model_copy(update={"attempt": shard.attempt + 1}))
        return None


def _ended(client: distributed.Client, futures: list[distributed.Future[Any]]) -> list[distributed.Future[Any]]:
    import distributed

    with client.as_current():
        try:
            return list(distributed.wait(futures, timeout=TICK_SECONDS, return_when="FIRST_COMPLETED").done)
        except TimeoutError:
            return []


def _mark_crashed(task_run_id: UUID, message: str) -> bool:
    """Tell Prefect that a task run is dead, and return whether it knows the run.

    Nobody else tells it, and the run would stay Running in the UI. The server hears of task runs by events:
    of one that has just begun it may not have heard yet, of one that never began it never will.
    """
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.states import Crashed

    with get_client(sync_client=True) as client:
        try:
            client.set_task_run_state(task_run_id, Crashed(message=message), force=True)
        except PrefectHTTPStatusError as error:
            if error.response.status_code != HTTPStatus.NOT_FOUND:
                raise
            return False
    return True
