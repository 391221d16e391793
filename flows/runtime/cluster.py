"""Dask: which cluster a run works on, and how it starts."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any

from darkroom.flows.runtime.environment import environment
from darkroom.flows.runtime.local_server import light_tls
from darkroom.flows.runtime.signals import deferred, unheard_by_children
from darkroom.tasks.errors import ClusterError
from darkroom.tasks.settings import Compute

if TYPE_CHECKING:
    import distributed
    from distributed import LocalCluster, SpecCluster
    from prefect_dask import DaskTaskRunner

WORKER_MODULE = "darkroom.flows.runtime.worker_setup"
"""Imported once by the process that workers are forked from; it must start no thread and open no client."""

CONNECT_SECONDS = 10

START_TRIES = 3
"""Dask gives up a cluster of which a worker dies before it is ready."""

_early_cluster: ContextVar[_EarlyCluster | None] = ContextVar("early_cluster", default=None)

WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
"""A worker process is one core's worth of work: more threads would only get in each other's way. The
allocator that comes with Arrow starts one as it is imported, which must not happen before a fork."""

WORKER_CONFIG: dict[str, Any] = {
    # A lost worker is reported at once, and its shard continued here, instead of running it into
    # whatever killed the worker on three more of them.
    "distributed.scheduler.allowed-failures": 0,
    "distributed.nanny.environ": WORKER_ENVIRONMENT,
    "distributed.worker.preload": [WORKER_MODULE],
    # Dask's own profiler stops every worker a hundred times a second to look at it.
    "distributed.worker.profile.enabled": False,
}


def local_workers(compute: Compute) -> int:
    """Return the number of worker processes of a local cluster: one per core that this process may use."""
    from dask.system import CPU_COUNT  # knows of affinity and of the limits of containers

    return compute.workers or int(CPU_COUNT)


def count_workers(compute: Compute) -> int:
    """Return how many shards the run's cluster works on at a time, as far as that is known before it is there.

    Raises:
        ClusterError: the scheduler can't be reached.
    """
    if is_local(compute):
        return local_workers(compute)
    if not compute.scheduler:
        workers = compute.cluster_kwargs.get("n_workers")
        return workers if isinstance(workers, int) and workers > 0 else local_workers(compute)
    from distributed import Client

    try:
        with (
            _only_errors("distributed"),
            Client(compute.scheduler, timeout=CONNECT_SECONDS, set_as_default=False) as client,
        ):
            return max(1, count_threads(client))
    except (OSError, TimeoutError) as error:
        raise ClusterError(
            f"scheduler: {compute.scheduler} can't be reached ({type(error).__name__}). Is the Dask scheduler running, "
            "and is that its address?"
        ) from error
    except (TypeError, ValueError) as error:  # what Dask says of an address or of certificates that it can't use
        raise ClusterError(f"scheduler: {compute.scheduler} can't be used: {error}") from error


def is_local(compute: Compute) -> bool:
    """Say whether the run brings its own cluster on this machine."""
    return not (compute.scheduler or compute.cluster_class)


@cache  # the environment must not change again when other threads read it
def warm_up() -> None:
    """Begin, in a process beside this one, to import what workers need, so that they start at once.

    Only on Linux: elsewhere forking after imports isn't safe, and workers are spawned.
    """
    if sys.platform == "linux":
        # Not at the top: what these clean up at exit is to be registered after the command line's own exit handler,
        # which runs last and ends the process.
        import multiprocessing.forkserver
        import multiprocessing.resource_tracker

        # It removes the semaphores of a process that was ended at once, which is no news to its user.
        ignored = filter(None, (os.environ.get("PYTHONWARNINGS"), "ignore:resource_tracker:UserWarning"))
        with environment({"PYTHONWARNINGS": ",".join(ignored)}), unheard_by_children():
            multiprocessing.resource_tracker.ensure_running()
        # PYTHONSAFEPATH: a folder named flows where the user happens to be is not ours.
        with environment({**WORKER_ENVIRONMENT, "PYTHONSAFEPATH": "1"}), unheard_by_children():
            multiprocessing.set_forkserver_preload([WORKER_MODULE])
            multiprocessing.forkserver.ensure_running()


def count_threads(client: distributed.Client) -> int:
    """Return how many tasks a cluster works on at a time."""
    threads: dict[str, int] = client.nthreads()
    return sum(threads.values())


def replace_lost_workers(client: distributed.Client) -> None:
    """Have a cluster that was started here start workers in the place of those that Dask has given up.

    Those are the ones of which a nanny could not start a process, and, on a cluster that is not of this machine, those
    that are not there `distributed.deploy.lost-worker-timeout` after they were lost.
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
        from prefect_dask import DaskTaskRunner

    with ExitStack() as stack:
        stack.enter_context(_only_errors("distributed"))
        try:
            if compute.scheduler:
                runner = DaskTaskRunner(address=compute.scheduler)
            elif compute.cluster_class:
                stack.enter_context(_dask_config(WORKER_CONFIG))
                runner = DaskTaskRunner(cluster_class=compute.cluster_class, cluster_kwargs=compute.cluster_kwargs)
            else:
                stack.enter_context(light_tls())
                early = _early_cluster.get() or _EarlyCluster(compute)
                # The cluster ends before the run gives its destination free.
                stack.callback(early.close)
                runner = DaskTaskRunner(early.cluster())
            stack.enter_context(runner)
            _ = runner.client
        except (OSError, RuntimeError, TimeoutError, TypeError, ValueError) as error:
            raise ClusterError(f"The Dask cluster could not be started or reached: {error}") from error
        yield runner


@contextmanager
def early_cluster(compute: Compute) -> Iterator[None]:
    """Start the cluster beside what else there is to do before a run that is sure to need it."""
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
    """A local cluster that starts in a thread of its own."""

    def __init__(self, compute: Compute) -> None:
        self._stack = ExitStack()
        self._thread = ThreadPoolExecutor(1, "cluster")
        self._starting = self._thread.submit(self._stack.enter_context, _local_cluster(compute))

    def cluster(self) -> LocalCluster:
        """Return the cluster once it has started; raises what its start raised."""
        return self._starting.result()

    def close(self) -> None:
        """End the cluster; may be called again."""
        wait([self._starting])
        self._stack.close()
        self._thread.shutdown()


@contextmanager
def _local_cluster(compute: Compute) -> Iterator[LocalCluster]:
    from distributed import LocalCluster

    arguments = {
        "n_workers": local_workers(compute),
        "threads_per_worker": 1,
        "processes": True,
        # tcp:// has no authentication: nothing of a local cluster listens beyond this machine.
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",
        "worker_dashboard_address": "127.0.0.1:0",
        # What a worker says of connections that close as its cluster ends is no news; the run tells what is.
        "silence_logs": logging.CRITICAL,
    }
    # Nannies replace what is lost. Dask would give one up also while it does so, if another was lost just before, and
    # a second one of its name is refused for as long as it ends.
    config = WORKER_CONFIG | {"distributed.deploy.lost-worker-timeout": "1000 days"}
    if sys.platform == "linux":
        warm_up()
        config["distributed.worker.multiprocessing-method"] = "forkserver"
    with (
        _only_errors("distributed"),
        _dask_config(config),
        _started(lambda: LocalCluster(**arguments | compute.cluster_kwargs)) as cluster,
    ):
        yield cluster


def _started(start: Callable[[], LocalCluster]) -> LocalCluster:
    for _ in range(START_TRIES - 1):
        with suppress(RuntimeError):  # what Dask raises then
            return start()
    return start()


@contextmanager
def _dask_config(config: dict[str, Any]) -> Iterator[None]:
    import dask

    with dask.config.set(config):
        yield


@contextmanager
def _only_errors(name: str) -> Iterator[None]:
    """Keep a library's running commentary out of the run's output, and what the run says better itself."""
    logger, scheduler = logging.getLogger(name), logging.getLogger(f"{name}.scheduler")
    before = logger.level
    logger.setLevel(logging.ERROR)
    scheduler.addFilter(_is_news)
    try:
        yield
    finally:
        scheduler.removeFilter(_is_news)
        logger.setLevel(before)


def _is_news(record: logging.LogRecord) -> bool:
    """Say whether a line is about anything else than a shard that is lost with its worker."""
    return "workers died while trying to run it" not in str(record.msg)
