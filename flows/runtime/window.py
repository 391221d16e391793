"""A window of shards in flight on a Dask cluster, with new attempts at shards that are lost or stalled."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from prefect import get_run_logger
from prefect.states import Cancelled

from darkroom.flows.runtime.attempts import Attempt, Attempts
from darkroom.flows.runtime.cluster import dask_runner, forks_workers, replace_lost_workers
from darkroom.flows.runtime.crashed import mark_crashed
from darkroom.flows.runtime.endings import fetch_end, wait_for_any, why_not_run
from darkroom.flows.runtime.outcome import data_of
from darkroom.flows.runtime.progress import Progress, Result, notice, shown
from darkroom.flows.runtime.signals import raise_lost
from darkroom.flows.runtime.task_runs import FlowContext, submit
from darkroom.flows.runtime.workers import Workers
from darkroom.tasks.dataset.shard import PROGRESS_TOPIC, ShardRef
from darkroom.tasks.errors import DestinationError
from darkroom.tasks.settings import Compute

if TYPE_CHECKING:
    from uuid import UUID

    from prefect import Task
    from prefect.states import State
    from prefect_dask import DaskTaskRunner

R = TypeVar("R")
ShardResult = TypeVar("ShardResult", bound=Result)

SHARDS_PER_THREAD_IN_FLIGHT = 2

MAX_FRUITLESS_ATTEMPTS = 3
"""A shard is given up after this many attempts in a row that finished no image: as images can't kill a worker,
something is wrong with the workers."""

MAX_LOST_UNBEGUN = 5
"""Losing a shard that was only queued on a worker counts as an attempt after this many times without another shard
ending."""


@dataclass(frozen=True, slots=True)
class ShardFailure:
    """A shard that was given up, and why."""

    shard: ShardRef
    reason: str


def map_shards(
    task: Task[[ShardRef], ShardResult],
    shards: Sequence[ShardRef],
    compute: Compute,
    progress: Progress[ShardResult],
    *checks: Callable[[], None],
) -> None:
    """Run a task for every shard, and record progress, results and failures.

    Args:
        task: processes a shard; its parameter is called `shard`.
        shards: at least one.
        compute: the cluster to run on.
        progress: records progress, results and failures.
        checks: called several times a second; their exceptions end the run.
    """
    with dask_runner(compute) as runner, shown(progress, shards[0].destination) as show:

        def tick() -> None:
            for call in (show, raise_lost, *checks):
                call()

        try:
            for outcome in run_shards(runner, task, shards, progress.on_message, tick):
                if isinstance(outcome, ShardFailure):
                    shard = outcome.shard.label.capitalize()
                    progress.failures.append(f"{shard} could not be processed: {outcome.reason}")
                else:
                    progress.finish(outcome)
        finally:
            progress.ended = time.monotonic()


def run_shards(
    runner: DaskTaskRunner,
    task: Task[[ShardRef], R],
    shards: Sequence[ShardRef],
    on_message: Callable[[dict[str, Any]], None],
    tick: Callable[[], None],
) -> Iterator[R | ShardFailure]:
    """Run a task for every shard, a few per worker at a time, and yield results as shards end.

    A shard whose worker died, or whose task failed, gets another attempt, which goes on where the journal ends; after
    `MAX_FRUITLESS_ATTEMPTS` it is yielded as a failure. A shard that makes no progress gets another attempt as soon as
    another worker is idle; the first to succeed counts.

    Raises:
        ClusterError: the scheduler is lost, or the cluster has had no worker that takes shards for `NO_WORKER_SECONDS`.
        DestinationError: a worker can't write to the destination any more.

    Args:
        runner: where the tasks run.
        task: processes a shard; its parameter is called `shard`.
        shards: the shards.
        on_message: called, in another thread, with the progress messages of workers.
        tick: called several times a second; its exceptions end the run.
    """
    client: Any = runner.client
    runs = {shard.run_id for shard in shards}
    attempts = Attempts(Workers(client, are_forked=forks_workers(client)))
    window = _Window(runner, task, deque(shards), attempts)

    def on_event(event: tuple[float, dict[str, Any]]) -> None:
        message = event[1]
        # Other runs of a shared cluster publish to the same topic.
        if message["run"] in runs and attempts.on_message(message):
            on_message(message)

    client.subscribe_topic(PROGRESS_TOPIC, on_event)
    try:
        while window.waiting or attempts.running:
            replace_lost_workers(client)
            attempts.workers.poll()
            if waits := attempts.workers.check(attempts.progressed_at):
                notice(waits)
            attempts.watch()
            window.fill()
            window.begin_stalled_elsewhere()
            yield from window.collect()
            tick()
    finally:
        client.cancel(list(attempts.running), force=True)
        client.unsubscribe_topic(PROGRESS_TOPIC)
        ended = [
            (attempt.task_run_id, f"{attempt.shard.label.capitalize()}: the run ended first")
            for attempt in attempts.running.values()
        ]
        if window.unmarked:
            mark_crashed(window.unmarked)
        if ended:
            mark_crashed(ended, Cancelled)


@dataclass(slots=True)
class _Window(Generic[R]):
    """The shards in flight: enough to keep every worker busy, few enough for any scheduler."""

    runner: DaskTaskRunner
    task: Task[[ShardRef], R]
    waiting: deque[ShardRef]
    attempts: Attempts
    context: FlowContext = field(default_factory=FlowContext.current)
    lost_unbegun: Counter[int] = field(default_factory=Counter)
    """By shard: how often it was lost while queued on a worker, since a shard last ended."""

    fruitless: Counter[int] = field(default_factory=Counter)
    """By shard: number of attempts in a row that finished no image."""

    parts: dict[int, int] = field(default_factory=dict)
    """By shard: number of its journal parts when its last attempt ended."""

    unmarked: list[tuple[UUID, str]] = field(default_factory=list)
    """Ended task runs that the server did not know yet, with the message of their Crashed state."""

    @property
    def workers(self) -> Workers:
        """The cluster's workers."""
        return self.attempts.workers

    def fill(self) -> None:
        """Submit shards until enough are in flight for the threads of workers that take shards.

        A cluster without workers gets some too: one that adapts to the work starts workers for tasks that wait.
        """
        threads = self.workers.threads if self.workers.known else 1
        room = SHARDS_PER_THREAD_IN_FLIGHT * threads - self.attempts.count_active()
        for _ in range(min(room, len(self.waiting))):
            self._submit(self.waiting.popleft(), self.workers.allowed())

    def _submit(self, shard: ShardRef, workers: list[str] | None) -> None:
        """Submit an attempt at a shard to the workers at these addresses, or, with None, to any."""
        future, task_run_id = submit(self.runner.client, self.task, self.context, {"shard": shard}, workers)
        self.attempts.add(Attempt(shard, future, task_run_id))

    def begin_stalled_elsewhere(self) -> None:
        """Begin stalled shards again on idle workers, and report those that the run has to wait for."""
        if self.waiting:
            return
        waited_for = []
        for attempts in self.attempts.stalled():
            last = attempts[-1]
            if worker := self.workers.take_idle([attempt.worker for attempt in attempts]):
                why = self.attempts.why(last)
                notice(f"{last.shard.label.capitalize()} is begun on worker {worker}, too: {why}.")
                self.attempts.replaced[last.shard.number] += 1
                self._submit(self._next_attempt(last.shard), [worker])
            elif not last.is_noted and self.attempts.is_waited_for(last):
                last.is_noted = True
                waited_for.append(last)
        if waited_for:
            last, more = waited_for[0], len(waited_for) - 1
            others = f", and for {more:,} more shards" if more > 1 else ", and for another shard" if more else ""
            notice(f"Waiting for {last.shard.label}{others}: {self.attempts.why(last)}.")

    def _next_attempt(self, shard: ShardRef) -> ShardRef:
        return shard.model_copy(update={"attempt": self.attempts.newest[shard.number] + 1})

    def collect(self) -> Iterator[R | ShardFailure]:
        """Wait up to a tick for shards to end, and yield the outcomes of those that have."""
        for done in wait_for_any(self.runner.client, list(self.attempts.running)):
            attempt = self.attempts.running.get(done)
            end = fetch_end(done) if attempt else None
            if attempt is None or end is None:
                continue
            self.attempts.remove(attempt)
            outcome = self._outcome(attempt, end)
            # As long as a result is held, Dask computes it again if the worker that has it dies.
            done.release()
            if outcome is not None:
                yield outcome

    def _outcome(self, attempt: Attempt, end: State[R] | Exception) -> R | ShardFailure | None:
        """Return the result or failure of a shard; None if another attempt at it is under way or follows."""
        import distributed

        if isinstance(end, distributed.KilledWorker):
            reason = "its workers were lost, most often for lack of memory"
            return self._lost(attempt, f"its worker {end.last_worker.address} was lost", reason)
        if isinstance(end, distributed.CancelledError):
            how = f"it was cancelled on the Dask cluster ({getattr(end, 'reason', 'unknown')})"
            return self._lost(attempt, how, f"{how}, as by restarts of the cluster")
        if isinstance(end, Exception):
            # Raised outside the task, whose own exceptions are in its state.
            reason = why_not_run(end)
            self.unmarked += mark_crashed([(attempt.task_run_id, reason)])
            return self._again(attempt, reason)
        self.lost_unbegun.clear()
        if end.is_completed():
            self._end_others(attempt.shard)
            result: R = end.result(_sync=True)  # type: ignore[call-overload]
            return result
        if isinstance(problem := data_of(end), DestinationError):
            raise problem  # every other shard would fail, too
        return self._again(attempt, end.message or end.name or "")

    def _end_others(self, shard: ShardRef) -> None:
        """Cancel the other attempts at a finished shard; one that goes on later fails its claim before it writes."""
        others = self.attempts.of_shard(shard)
        if not others:
            return
        client: Any = self.runner.client
        client.cancel([other.future for other in others], force=True)
        for other in others:
            self.attempts.remove(other)
        message = f"{shard.label.capitalize()} was done first."
        self.unmarked += mark_crashed([(other.task_run_id, message) for other in others])

    def _lost(self, attempt: Attempt, how: str, reason: str) -> ShardFailure | None:
        shard = attempt.shard
        message = f"{shard.label.capitalize()}: {how}"
        get_run_logger().warning(message)
        self.unmarked += mark_crashed([(attempt.task_run_id, message)])
        if self.attempts.of_shard(shard):
            return None
        if not attempt.begun and self.lost_unbegun[shard.number] < MAX_LOST_UNBEGUN:
            self.lost_unbegun[shard.number] += 1
            self.waiting.appendleft(shard)
            return None
        self.lost_unbegun.clear()
        return self._again(attempt, reason)

    def _again(self, attempt: Attempt, reason: str) -> ShardFailure | None:
        """Queue another attempt, unless one is under way or too many in a row finished no image."""
        shard = attempt.shard
        if self.attempts.of_shard(shard):
            return None
        number, parts = shard.number, len(shard.workspace.journal_parts(shard.number))
        self.fruitless[number] = 0 if parts > self.parts.get(number, 0) else self.fruitless[number] + 1
        self.parts[number] = parts
        if self.fruitless[number] >= MAX_FRUITLESS_ATTEMPTS:
            return ShardFailure(shard, reason)
        self.waiting.appendleft(self._next_attempt(shard))
        return None
