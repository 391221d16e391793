"""The workers of a Dask cluster: which of them take shards, and why the others don't."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from darkroom.flows.runtime.endings import scheduler_lost
from darkroom.flows.runtime.versions import find_differences
from darkroom.tasks.errors import ClusterError

if TYPE_CHECKING:
    import distributed

POLL_SECONDS = 1.0
"""The scheduler is asked about its workers this often."""

SILENT_SECONDS = 15.0
"""A worker without a heartbeat for so long is silent: stopped, or cut off. Heartbeats are sent every second or two."""


MAX_INTERVAL_SECONDS = 5.0
"""Of the time between two looks, no more is counted: this process or the scheduler was stopped, and not the workers."""

NO_WORKER_SECONDS = 600


@dataclass(slots=True)
class Worker:
    """A worker, as the scheduler has it."""

    threads: int = 0
    status: str = ""
    """The name of one of Dask's `Status`."""

    last_seen: float = 0.0
    """When its last heartbeat came, by the scheduler's clock."""

    silent_seconds: float = 0.0
    """For how long this process has seen no new heartbeat."""

    tasks: int = 0
    """Number of tasks that Dask has given to it."""

    difference: str = ""
    """How its versions differ from the flow's, as a clause."""

    @property
    def is_silent(self) -> bool:
        """Whether it has sent no heartbeat for `SILENT_SECONDS`."""
        return self.silent_seconds >= SILENT_SECONDS

    @property
    def problem(self) -> str:
        """Why it gets no shards, as a clause; empty if it does."""
        if self.difference:
            return self.difference
        if self.is_silent:
            return f"has sent no heartbeat for {self.silent_seconds:.0f} s: it is stopped, overloaded or cut off"
        if self.status == "paused":
            return "is paused by Dask, because its memory is nearly used up: give it more, or fewer threads"
        return "" if self.status == "running" else f"is {self.status.replace('_', ' ')}"


@dataclass(slots=True)
class Workers:
    """The workers of the cluster that a client is connected to, asked for every `POLL_SECONDS`."""

    client: distributed.Client
    known: dict[str, Worker] = field(default_factory=dict)
    """By address."""

    are_forked: bool = False
    """Whether they come from this process, and so have its versions."""

    _places: dict[str, str] = field(default_factory=dict)
    """By key of a task: the address of the worker to which Dask has given it."""

    _polled_at: float = float("-inf")
    _seen_at: float = field(default_factory=time.monotonic)
    """When there last was one that takes shards."""

    _is_noted: bool = False
    """Whether `check` has said that the run waits for one."""

    def poll(self) -> None:
        """Ask the scheduler, if it is time to.

        Raises:
            ClusterError: the scheduler is lost.
        """
        elapsed = time.monotonic() - self._polled_at
        if elapsed < POLL_SECONDS:
            return
        try:
            found = self.client.scheduler_info()["workers"]
            given: dict[str, list[str]] = self.client.processing()
        except OSError as error:
            raise scheduler_lost() from error
        for address in self.known.keys() - found.keys():
            del self.known[address]
        self._compare_versions(found.keys() - self.known.keys())
        for address, info in found.items():
            worker = self.known.setdefault(address, Worker())
            worker.threads, worker.status = info["nthreads"], info["status"]
            worker.tasks = len(given.get(address, ()))
            silent = worker.last_seen == info["last_seen"]
            worker.silent_seconds = worker.silent_seconds + min(elapsed, MAX_INTERVAL_SECONDS) if silent else 0.0
            worker.last_seen = info["last_seen"]
        self._places = {key: address for address, keys in given.items() for key in keys}
        self._polled_at = time.monotonic()

    def _compare_versions(self, addresses: set[str]) -> None:
        """Look at the versions of workers that are new.

        Raises:
            ClusterError: there is no worker whose versions are the flow's.
        """
        if self.are_forked or not addresses:
            return
        differences = find_differences(self.client, addresses)
        for address in addresses:
            self.known[address] = Worker(difference=differences.get(address, ""))
        if all(worker.difference for worker in self.known.values()):
            raise ClusterError(
                f"No worker of the Dask cluster can take shards: {self._describe_problems()}. Give the workers what "
                "the flow has, as docs/clusters.md describes."
            )

    def check(self, progressed_at: float) -> str:
        """Return a line about why the run waits for a worker, once each time that it begins to; else an empty text.

        Args:
            progressed_at: when the run last made progress: a worker that is paused goes on with its shard.

        Raises:
            ClusterError: so it has been for `NO_WORKER_SECONDS`.
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

    def place_of(self, key: str) -> str | None:
        """Return the address of the worker to which Dask has given a task; None if to none."""
        return self._places.get(key)

    def problem_of(self, address: str | None) -> str:
        """Return why the worker at an address gets no shards, as a clause; empty if it does, or there is none."""
        worker = self.known.get(address or "")
        return worker.problem if worker else ""

    def is_silent(self, address: str | None) -> bool:
        """Return whether the worker at an address is silent; if there is none, it is not."""
        worker = self.known.get(address or "")
        return worker.is_silent if worker else False

    def allowed(self) -> list[str] | None:
        """Return the addresses of those that get shards; None if Dask itself gives none to any other."""
        # Dask leaves out the paused ones, but no others.
        if not any(worker.is_silent or worker.difference for worker in self.known.values()):
            return None
        return [address for address, worker in self.known.items() if not worker.problem]

    def take_idle(self, excluded: Iterable[str | None]) -> str | None:
        """Return the address of a worker that has a thread to spare, and count a task for it; None if there is none."""
        for address, worker in self.known.items():
            if not worker.problem and worker.tasks < worker.threads and address not in excluded:
                worker.tasks += 1
                return address
        return None

    def _describe_problems(self) -> str:
        """Return why no worker gets a shard, as a sentence without its period."""
        problems = [f"{address} {worker.problem}" for address, worker in self.known.items() if worker.problem]
        if not problems:
            return "the cluster has none"
        more = f", and {len(problems) - 1:,} more take none either" if problems[1:] else ""
        return f"worker {problems[0]}{more}"


def count_threads(client: distributed.Client) -> int:
    """Return the number of threads of workers that take tasks, each of which runs one at a time."""
    workers = client.scheduler_info()["workers"].values()
    return sum(worker["nthreads"] for worker in workers if worker["status"] == "running")
