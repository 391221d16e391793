"""The workers of a Dask cluster: which take shards, and why the others don't."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from darkroom.flows.runtime.endings import scheduler_lost
from darkroom.flows.runtime.versions import VERSIONS_REMEDY, find_differences
from darkroom.tasks.errors import ClusterError

if TYPE_CHECKING:
    import distributed

POLL_SECONDS = 1.0
"""The scheduler is asked about its workers this often."""

SILENT_SECONDS = 15.0
"""A worker without a heartbeat for this long is silent: stopped, or cut off. Heartbeats come every 1–2 s."""

MAX_INTERVAL_SECONDS = 5.0
"""At most this much of the time between two polls counts: after a longer gap, this process or the scheduler was
stopped, not the workers."""

NO_WORKER_SECONDS = 600
"""A run fails after this long without a worker that takes shards."""


@dataclass(slots=True)
class Worker:
    """A worker, as the scheduler describes it."""

    threads: int = 0
    status: str = ""
    """The name of one of Dask's `Status`."""

    last_seen: float = 0.0
    """Time of its last heartbeat, by the scheduler's clock."""

    silent_seconds: float = 0.0
    """How long this process has seen no new heartbeat."""

    tasks: int = 0
    """Number of tasks that Dask has assigned to it."""

    difference: str = ""
    """How its versions differ from the flow's, as a clause."""

    is_compared: bool = False
    """Whether it has reported its versions."""

    @property
    def is_silent(self) -> bool:
        """Whether it has sent no heartbeat for `SILENT_SECONDS`."""
        return self.silent_seconds >= SILENT_SECONDS

    @property
    def problem(self) -> str:
        """Why it takes no shards, as a clause; empty if it does."""
        if self.is_silent:
            return f"has sent no heartbeat for {self.silent_seconds:.0f} s: it is stopped, overloaded or cut off"
        if self.difference:
            return self.difference
        if self.status == "paused":
            return "is paused by Dask, because its memory is nearly used up: give it more, or fewer threads"
        return "" if self.status == "running" else f"is {self.status.replace('_', ' ')}"


@dataclass(slots=True)
class Workers:
    """The workers of a client's cluster, polled every `POLL_SECONDS`."""

    client: distributed.Client
    known: dict[str, Worker] = field(default_factory=dict)
    """By address."""

    are_forked: bool = False
    """Whether they are children of this process, and so have its versions."""

    _addresses: dict[str, str] = field(default_factory=dict)
    """By key of a task: the address of the worker to which Dask has assigned it."""

    _polled_at: float = float("-inf")
    _seen_at: float = field(default_factory=time.monotonic)
    """When the cluster last had a worker that takes shards."""

    _is_noted: bool = False
    """Whether `check` has reported that the run waits for a worker."""

    def poll(self) -> None:
        """Ask the scheduler about its workers, if the last poll is old enough; raise `ClusterError` if it is lost."""
        elapsed = time.monotonic() - self._polled_at
        if elapsed < POLL_SECONDS:
            return
        try:
            found = self.client.scheduler_info()["workers"]
            assigned: dict[str, list[str]] = self.client.processing()
        except OSError as error:
            raise scheduler_lost() from error
        for address in self.known.keys() - found.keys():
            del self.known[address]
        for address in found.keys() - self.known.keys():
            self.known[address] = Worker(is_compared=self.are_forked)
        self._compare_versions()
        for address, info in found.items():
            worker = self.known[address]
            worker.threads, worker.status = info["nthreads"], info["status"]
            worker.tasks = len(assigned.get(address, ()))
            silent = worker.last_seen == info["last_seen"]
            worker.silent_seconds = worker.silent_seconds + min(elapsed, MAX_INTERVAL_SECONDS) if silent else 0.0
            worker.last_seen = info["last_seen"]
        self._addresses = {key: address for address, keys in assigned.items() for key in keys}
        self._polled_at = time.monotonic()

    def _compare_versions(self) -> None:
        """Ask workers that have not answered yet which versions they have.

        Raises:
            ClusterError: there is no worker whose versions are the flow's.
        """
        asked = [address for address, each in self.known.items() if not (each.is_compared or each.is_silent)]
        if not asked:
            return
        differences = find_differences(self.client, asked)
        for address in asked:
            worker = self.known[address]
            worker.is_compared = address in differences
            worker.difference = differences.get(address, "has not reported its versions yet")
        if all(worker.is_compared and worker.difference for worker in self.known.values()):
            raise ClusterError(
                f"No worker of the Dask cluster can take shards: {self._describe_problems()}. {VERSIONS_REMEDY}"
            )

    def check(self, progressed_at: float) -> str:
        """Return why the run waits for a worker, once for each wait; otherwise an empty string.

        Args:
            progressed_at: when the run last made progress: a paused worker still finishes its shard.

        Raises:
            ClusterError: the run has waited for `NO_WORKER_SECONDS`.
        """
        now = time.monotonic()
        if self.threads:
            self._seen_at, self._is_noted = now, False
        seconds = now - max(self._seen_at, progressed_at)
        if seconds > NO_WORKER_SECONDS:
            problems = f" that takes shards: {self._describe_problems()}" if self.known else ""
            raise ClusterError(
                f"The Dask cluster has had no worker for {NO_WORKER_SECONDS:g} seconds{problems}. Start workers, with "
                "a nanny to replace those that die. What a run has finished is kept: the same command goes on from "
                "there."
            )
        if seconds > SILENT_SECONDS and not self._is_noted:
            self._is_noted = True
            return f"Waiting for a worker: {self._describe_problems()}."
        return ""

    @property
    def threads(self) -> int:
        """How many shards the cluster can process at a time."""
        return sum(worker.threads for worker in self.known.values() if not worker.problem)

    def address_of(self, key: str) -> str | None:
        """Return the address of the worker to which Dask has assigned a task; None if it is unassigned."""
        return self._addresses.get(key)

    def problem_of(self, address: str | None) -> str:
        """Return why the worker at an address takes no shards, as a clause; empty if it does or is unknown."""
        worker = self.known.get(address or "")
        return worker.problem if worker else ""

    def is_silent(self, address: str | None) -> bool:
        """Return whether the worker at an address is silent; False if it is unknown."""
        worker = self.known.get(address or "")
        return worker.is_silent if worker else False

    def allowed(self) -> list[str] | None:
        """Return the addresses of the workers that may get shards; None if Dask makes the right choice itself."""
        # Dask assigns no task to a paused worker, but does to a silent one, or one with other versions.
        if not any(worker.is_silent or worker.difference for worker in self.known.values()):
            return None
        return [address for address, worker in self.known.items() if not worker.problem]

    def take_idle(self, excluded: Iterable[str | None]) -> str | None:
        """Return the address of a worker with a free thread, and count a task for it; None if there is none."""
        for address, worker in self.known.items():
            if not worker.problem and worker.tasks < worker.threads and address not in excluded:
                worker.tasks += 1
                return address
        return None

    def _describe_problems(self) -> str:
        """Return why no worker takes shards, as a clause."""
        problems = [f"{address} {worker.problem}" for address, worker in self.known.items() if worker.problem]
        if not problems:
            return "the cluster has none"
        more = f", and {len(problems) - 1:,} more take none either" if problems[1:] else ""
        return f"worker {problems[0]}{more}"


def count_threads(client: distributed.Client) -> int:
    """Return the number of threads of running workers; each thread runs one task at a time."""
    workers = client.scheduler_info()["workers"].values()
    return sum(worker["nthreads"] for worker in workers if worker["status"] == "running")
