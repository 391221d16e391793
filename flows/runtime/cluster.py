"""The Dask cluster of a run: which one, and how it starts and ends."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager, suppress
from contextvars import ContextVar
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from darkroom.flows.runtime.environment import environment
from darkroom.flows.runtime.local_server import lean_client
from darkroom.flows.runtime.machine import shorten_socket_paths
from darkroom.flows.runtime.signals import deferred, ignored_by_children
from darkroom.flows.runtime.versions import VERSIONS_REMEDY, describe_scheduler
from darkroom.flows.runtime.workers import count_threads
from darkroom.tasks.errors import ClusterError
from darkroom.tasks.settings import Compute

if TYPE_CHECKING:
    import distributed
    from distributed import LocalCluster, SpecCluster
    from prefect_dask import DaskTaskRunner

WORKER_MODULE = "darkroom.flows.worker_setup"
"""Imported once, by the process that workers are forked from; it must start no thread and open no connection."""

CONNECT_SECONDS = 10

START_TRIES = 3
"""Dask fails to start a cluster if a worker dies before it is ready."""

_early_cluster: ContextVar[_EarlyCluster | None] = ContextVar("early_cluster", default=None)

WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
"""A worker process uses one core: libraries must not start threads of their own. Arrow's allocator would start one at
import, before the fork."""

WORKER_CONFIG: dict[str, Any] = {
    # Report a lost worker at once: the flow itself decides about further attempts at its shard.
    "distributed.scheduler.allowed-failures": 0,
    "distributed.nanny.environ": WORKER_ENVIRONMENT,
    "distributed.worker.preload": [WORKER_MODULE],
    # Dask's profiler would interrupt every worker a hundred times a second.
    "distributed.worker.profile.enabled": False,
    # By default, each worker, nanny and scheduler measures 50 times a second how busy its event loop is.
    "distributed.admin.tick.interval": "1s",
}


def local_workers(compute: Compute) -> int:
    """Return the number of worker processes of a local cluster: one per core that this process may use."""
    from dask.system import CPU_COUNT  # respects CPU affinity and container limits

    return compute.workers or int(CPU_COUNT)


def worker_counter(compute: Compute) -> Callable[[], int]:
    """Return a function that counts the shards that the run's cluster can process at a time, known before it starts.

    A scheduler is asked at once. Otherwise counting imports Dask, which a run with nothing to do doesn't need.

    Raises:
        ClusterError: the scheduler can't be reached, or has other versions.
    """
    if not compute.scheduler:
        wanted = compute.cluster_kwargs.get("n_workers")
        given = compute.cluster_class and isinstance(wanted, int) and wanted > 0
        return partial(int, wanted) if given else partial(local_workers, compute)
    from distributed import Client

    try:
        with (
            _only_errors("distributed"),
            Client(compute.scheduler, timeout=CONNECT_SECONDS, set_as_default=False) as client,
        ):
            if difference := describe_scheduler(client):
                raise ClusterError(f"`scheduler={compute.scheduler}` {difference}. {VERSIONS_REMEDY}")
            return partial(max, 1, count_threads(client))
    except (OSError, TimeoutError) as error:
        raise ClusterError(
            f"`scheduler={compute.scheduler}` can't be reached. Is the Dask scheduler running, and is that its address?"
        ) from error
    except (TypeError, ValueError) as error:  # raised by Dask for an unusable address or certificate
        raise ClusterError(f"`scheduler={compute.scheduler}` can't be used: {error}") from error


def is_local(compute: Compute) -> bool:
    """Return whether the run starts its own cluster on this machine."""
    return not (compute.scheduler or compute.cluster_class)


def forks_workers(client: distributed.Client) -> bool:
    """Return whether the workers of a cluster are children of this process."""
    from distributed import LocalCluster

    return isinstance(client.cluster, LocalCluster)


@cache  # once, because it changes the environment, which other threads may read later
def warm_up() -> None:
    """Start importing the workers' modules in the process that they are forked from, so that they start fast.

    Only on Linux: elsewhere forking after imports is not safe, and workers are spawned.
    """
    if sys.platform == "linux":
        # Imported here so that their exit handlers are registered after the command line's, which must run last.
        import multiprocessing.forkserver
        import multiprocessing.resource_tracker

        # After a second Ctrl-C it removes leaked semaphores; its warning about them would only confuse.
        ignored = filter(None, (os.environ.get("PYTHONWARNINGS"), "ignore:resource_tracker:UserWarning"))
        shorten_socket_paths()
        with environment({"PYTHONWARNINGS": ",".join(ignored)}), ignored_by_children():
            multiprocessing.resource_tracker.ensure_running()
        # PYTHONSAFEPATH: a package in the user's working directory must not shadow this one.
        with environment({**WORKER_ENVIRONMENT, "PYTHONSAFEPATH": "1"}), ignored_by_children():
            multiprocessing.set_forkserver_preload([WORKER_MODULE])
            multiprocessing.forkserver.ensure_running()


def replace_lost_workers(client: distributed.Client) -> None:
    """Start new workers in place of those that Dask has given up, on a cluster that was started by this process.

    Dask gives up a worker whose nanny can't start a process and, on clusters of other classes, one that is not back
    within `distributed.deploy.lost-worker-timeout`.
    """
    from distributed import SpecCluster

    cluster = client.cluster
    if isinstance(cluster, SpecCluster) and cluster.loop:
        cluster.loop.add_callback(_replace_lost_workers, cluster)


def _replace_lost_workers(cluster: SpecCluster) -> None:
    from distributed.core import Status

    ended = [name for name, worker in cluster.workers.items() if worker.status in (Status.closed, Status.failed)]
    for name in ended:
        del cluster.workers[name]
    if len(cluster.workers) < len(cluster.worker_spec):
        cluster.scale(len(cluster.worker_spec))


@contextmanager
def dask_runner(compute: Compute) -> Iterator[DaskTaskRunner]:
    """Provide the task runner that the compute settings ask for, connected to its cluster.

    Raises:
        ClusterError: the cluster can't be started or reached.
    """
    with deferred():
        import dask
        from prefect import get_run_logger
        from prefect_dask import DaskTaskRunner

    with ExitStack() as stack:
        stack.enter_context(_only_errors("distributed"))
        try:
            if compute.scheduler:
                runner = DaskTaskRunner(address=compute.scheduler)
            elif compute.cluster_class:
                stack.enter_context(dask.config.set(WORKER_CONFIG))
                runner = DaskTaskRunner(
                    cluster_class=compute.cluster_class,
                    cluster_kwargs=compute.cluster_kwargs,
                    adapt_kwargs=compute.adapt_kwargs,
                )
            else:
                stack.enter_context(lean_client())
                early = _early_cluster.get() or _EarlyCluster(compute)
                # The cluster must end before the run releases its destination.
                stack.callback(early.close)
                runner = DaskTaskRunner(early.cluster())
            stack.enter_context(runner)
            client = runner.client
        except (OSError, RuntimeError, TimeoutError, TypeError, ValueError) as error:
            raise ClusterError(f"The Dask cluster could not be started or reached: {error}") from error
        if compute.dashboard:
            get_run_logger().info(f"Dask's dashboard is at {client.dashboard_link}")
        yield runner


@contextmanager
def early_cluster(compute: Compute) -> Iterator[None]:
    """Start the cluster in the background, for a run that is sure to need it."""
    if not is_local(compute):
        yield
        return
    with closing(_EarlyCluster(compute)) as early:
        token = _early_cluster.set(early)
        try:
            yield
        finally:
            _early_cluster.reset(token)


class _EarlyCluster:
    """A local cluster that starts in a thread."""

    def __init__(self, compute: Compute) -> None:
        self._stack = ExitStack()
        self._thread = ThreadPoolExecutor(1, "cluster")
        self._starting = self._thread.submit(self._stack.enter_context, _local_cluster(compute))

    def cluster(self) -> LocalCluster:
        """Return the cluster once it has started; raise what its start raised."""
        return self._starting.result()

    def close(self) -> None:
        """End the cluster; calling this again has no effect."""
        wait([self._starting])
        self._stack.close()
        self._thread.shutdown()


@contextmanager
def _local_cluster(compute: Compute) -> Iterator[LocalCluster]:
    import dask
    from distributed import LocalCluster

    has_dashboard = compute.dashboard or "dashboard_address" in compute.cluster_kwargs
    arguments = {
        "n_workers": local_workers(compute),
        "threads_per_worker": 1,
        "processes": True,
        # tcp:// has no authentication: a local cluster must not listen beyond the loopback interface.
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",
        # Bokeh takes each process that imports it a second and 50 MB.
        "scheduler_kwargs": {"dashboard": has_dashboard},
        # Workers log closed connections when their cluster ends; the run itself reports lost workers.
        "silence_logs": logging.CRITICAL,
    }
    # Nannies restart lost workers. With a timeout, Dask may give up a worker during its restart, and then refuses a new
    # one of the same name until the old one has ended.
    config = WORKER_CONFIG | {"distributed.deploy.lost-worker-timeout": "1000 days"}
    if sys.platform == "linux":
        warm_up()
        config["distributed.worker.multiprocessing-method"] = "forkserver"
    with (
        _only_errors("distributed"),
        dask.config.set(config),
        _started(lambda: LocalCluster(**arguments | compute.cluster_kwargs)) as cluster,
    ):
        if not has_dashboard:  # or Prefect would log the address of the scheduler's other pages as the dashboard's
            cluster.scheduler_info["services"].pop("dashboard", None)
        yield cluster


def _started(start: Callable[[], LocalCluster]) -> LocalCluster:
    for _ in range(START_TRIES - 1):
        with suppress(RuntimeError):  # raised by Dask if a worker died
            return start()
    return start()


@contextmanager
def _only_errors(name: str) -> Iterator[None]:
    """Hide a library's log below errors, and its line about lost shards, which the run reports itself."""
    logger, scheduler = logging.getLogger(name), logging.getLogger(f"{name}.scheduler")
    before = logger.level
    logger.setLevel(logging.ERROR)
    scheduler.addFilter(_is_not_lost_shard)
    try:
        yield
    finally:
        scheduler.removeFilter(_is_not_lost_shard)
        logger.setLevel(before)


def _is_not_lost_shard(record: logging.LogRecord) -> bool:
    """Return whether a log record is about anything but a shard that was lost with its worker."""
    return "workers died while trying to run it" not in str(record.msg)
