"""The attempts at shards that are under way, and those among them that are stalled."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from darkroom.flows.runtime import workers as cluster_workers
from darkroom.flows.runtime.workers import Workers
from darkroom.tasks.dataset.shard import ShardRef

if TYPE_CHECKING:
    from uuid import UUID

    import distributed

STALLED_SECONDS = 45.0
"""An attempt is stalled after this long without progress, or after `workers.SILENT_SECONDS` if its worker is silent."""

BACKOFF = 4
"""Factor by which `STALLED_SECONDS` grows each time that a shard is begun again."""


@dataclass(slots=True, eq=False)
class Attempt:
    """An attempt at a shard, from its submission until its end is known."""

    shard: ShardRef
    future: distributed.Future[Any]
    task_run_id: UUID
    begun: bool = False
    """Whether a worker has begun it."""

    worker: str | None = None
    """The address of the worker to which Dask has assigned it, once that is known."""

    quiet_seconds: float = 0.0
    """Time since its submission or its last sign of progress."""

    is_noted: bool = False
    """Whether the run has logged that it waits for this attempt."""


@dataclass(slots=True)
class Attempts:
    """The attempts under way, of which a shard may have several."""

    workers: Workers
    running: dict[distributed.Future[Any], Attempt] = field(default_factory=dict)
    newest: dict[int, int] = field(default_factory=dict)
    """By shard: the number of the last attempt that was submitted."""

    replaced: Counter[int] = field(default_factory=Counter)
    """By shard: number of attempts that were begun while another one was under way."""

    progressed_at: float = field(default_factory=time.monotonic)
    """When any attempt last made progress."""

    _by_number: dict[tuple[int, int], Attempt] = field(default_factory=dict)
    _watched_at: float = field(default_factory=time.monotonic)

    def add(self, attempt: Attempt) -> None:
        """Add an attempt that was submitted."""
        shard = attempt.shard
        self.running[attempt.future] = self._by_number[shard.number, shard.attempt] = attempt
        self.newest[shard.number] = shard.attempt

    def remove(self, attempt: Attempt) -> None:
        """Remove an attempt that has ended."""
        del self.running[attempt.future]
        del self._by_number[attempt.shard.number, attempt.shard.attempt]

    def of_shard(self, shard: ShardRef) -> list[Attempt]:
        """Return the attempts at a shard."""
        return [attempt for attempt in list(self.running.values()) if attempt.shard.number == shard.number]

    def on_message(self, message: dict[str, Any]) -> bool:
        """Handle a progress message, in any thread; return whether its attempt is under way."""
        attempt = self._by_number.get((message["shard"], message["attempt"]))
        if attempt is None:
            return False
        attempt.begun, attempt.quiet_seconds = True, 0.0
        attempt.worker = message.get("worker", attempt.worker)
        self.progressed_at = time.monotonic()
        return True

    def watch(self) -> None:
        """Update the workers and quiet times of all attempts; to be called every tick."""
        now = time.monotonic()
        elapsed, self._watched_at = min(now - self._watched_at, cluster_workers.MAX_INTERVAL_SECONDS), now
        for attempt in self.running.values():
            attempt.quiet_seconds += elapsed
            attempt.worker = self.workers.address_of(str(attempt.future.key)) or attempt.worker

    def count_active(self) -> int:
        """Return the number of attempts whose workers take shards."""
        return sum(not self.workers.problem_of(attempt.worker) for attempt in self.running.values())

    def stalled(self) -> list[list[Attempt]]:
        """Return, for each shard whose attempts are all stalled, those attempts, the newest last."""
        shards: dict[int, list[Attempt]] = {}
        for attempt in self.running.values():
            shards.setdefault(attempt.shard.number, []).append(attempt)
        return [attempts for attempts in shards.values() if all(map(self._is_stalled, attempts))]

    def _is_stalled(self, attempt: Attempt) -> bool:
        if self.workers.is_silent(attempt.worker):
            return attempt.quiet_seconds >= cluster_workers.SILENT_SECONDS
        # Backoff: a shard that is slow on every worker, such as one whose reads time out, must be able to finish.
        times = BACKOFF ** self.replaced[attempt.shard.number] if attempt.begun else 1
        return attempt.quiet_seconds >= STALLED_SECONDS * times

    def why(self, attempt: Attempt) -> str:
        """Return why an attempt is stalled, as a clause that names its worker."""
        if attempt.worker is None:
            return "no worker has it"
        if problem := self.workers.problem_of(attempt.worker):
            return f"worker {attempt.worker} {problem}"
        what = "made no progress with it" if attempt.begun else "not begun it"
        return f"worker {attempt.worker} has {what} for {attempt.quiet_seconds:.0f} s"

    def is_waited_for(self, attempt: Attempt) -> bool:
        """Return whether a stalled attempt delays the run, and is not just queued behind another one."""
        return attempt.begun or bool(self.workers.problem_of(attempt.worker))
