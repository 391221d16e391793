"""A window of shards in flight on a Dask cluster, and new attempts at those that are lost with their worker."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from prefect import get_run_logger
from prefect.states import Cancelled

from darkroom.flows.runtime.cluster import count_threads, dask_runner, replace_lost_workers
from darkroom.flows.runtime.crashed import mark_crashed
from darkroom.flows.runtime.outcome import data_of
from darkroom.flows.runtime.progress import Progress, Result, shown
from darkroom.flows.runtime.signals import raise_lost
from darkroom.tasks.dataset.shard import PROGRESS_TOPIC, ShardRef
from darkroom.tasks.errors import ClusterError, DestinationError
from darkroom.tasks.settings import Compute

if TYPE_CHECKING:
    from uuid import UUID

    import distributed
    from prefect import Task
    from prefect.states import State
    from prefect_dask import DaskTaskRunner
    from prefect_dask.task_runners import PrefectDaskFuture

R = TypeVar("R")
ShardResult = TypeVar("ShardResult", bound=Result)

SHARDS_PER_THREAD_IN_FLIGHT = 2
TICK_SECONDS = 0.5
FETCH_SECONDS = 10
CONNECTION_LOST = "scheduler-connection-lost"
"""The reason with which Dask's client cancels all futures when it loses its scheduler."""

NO_WORKER_SECONDS = 600

MAX_FRUITLESS_ATTEMPTS = 3
"""A shard is given up after this many attempts in a row that finished no image. Images can't kill a worker, so that
something is wrong with the workers."""

MAX_LOST_UNBEGUN = 5
"""A shard that is lost in the queue of a worker, before an attempt began, costs an attempt after this many times in
which no other shard ended."""


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


def run_shards(
    runner: DaskTaskRunner,
    task: Task[[ShardRef], R],
    shards: Sequence[ShardRef],
    on_message: Callable[[dict[str, Any]], None],
    tick: Callable[[], None],
) -> Iterator[R | ShardFailure]:
    """Run a task for every shard, a few per worker at a time, and yield results as shards end.

    A shard whose worker died, or whose task failed, gets another attempt, which goes on where the journal ends; after
    `MAX_FRUITLESS_ATTEMPTS` it is yielded as a failure.

    Raises:
        ClusterError: the scheduler is lost, or the cluster has had no worker for `NO_WORKER_SECONDS`.
        DestinationError: a worker can't write to the destination any more.

    Args:
        runner: where the tasks run.
        task: processes a shard; its parameter is called `shard`.
        shards: the shards.
        on_message: called, in another thread, with the progress messages of workers.
        tick: called several times a second; what it raises ends the run.
    """
    client: Any = runner.client
    runs = {shard.run_id for shard in shards}

    window = _Window(runner, task, deque(shards))

    def on_event(event: tuple[float, dict[str, Any]]) -> None:
        message = event[1]
        if message["run"] in runs:  # other runs of a shared cluster publish to the same topic
            window.begun.add((message["shard"], message["attempt"]))
            on_message(message)

    client.subscribe_topic(PROGRESS_TOPIC, on_event)
    try:
        while window.waiting or window.running:
            replace_lost_workers(client)
            window.fill(window.count_threads())
            yield from window.collect()
            tick()
    finally:
        client.cancel(list(window.running), force=True)
        client.unsubscribe_topic(PROGRESS_TOPIC)
        ended = [
            (future.task_run_id, f"{shard.label.capitalize()}: the run ended before it")
            for shard, future in window.running.values()
        ]
        if window.unmarked:
            mark_crashed(window.unmarked)
        if ended:
            mark_crashed(ended, Cancelled)


@dataclass(slots=True)
class _Window(Generic[R]):
    """The shards in flight: enough that no worker is idle, few enough for any scheduler."""

    runner: DaskTaskRunner
    task: Task[[ShardRef], R]
    waiting: deque[ShardRef]
    running: dict[distributed.Future[Any], tuple[ShardRef, PrefectDaskFuture[R]]] = field(default_factory=dict)
    begun: set[tuple[int, int]] = field(default_factory=set)
    """Shard and attempt numbers of the attempts that a worker has begun."""

    lost_unbegun: Counter[int] = field(default_factory=Counter)
    """By shard: how often it was lost in a worker's queue, before an attempt began, since any shard ended."""

    fruitless: Counter[int] = field(default_factory=Counter)
    """By shard: number of attempts in a row that finished no image."""

    parts: dict[int, int] = field(default_factory=dict)
    """By shard: number of its journal parts when an attempt at it last ended."""

    unmarked: list[tuple[UUID, str]] = field(default_factory=list)
    """Lost task runs that the server did not know yet, with the message of their Crashed state."""

    worker_seen: float = field(default_factory=time.monotonic)
    """When the cluster last had a worker."""

    def count_threads(self) -> int:
        """Return how many shards the cluster can process at a time.

        Raises:
            ClusterError: it has had no worker for `NO_WORKER_SECONDS`.
        """
        try:
            threads = count_threads(self.runner.client)
        except OSError as error:
            raise _scheduler_lost() from error
        now = time.monotonic()
        if threads:
            self.worker_seen = now
        elif now - self.worker_seen > NO_WORKER_SECONDS:
            raise ClusterError(
                f"The Dask cluster has had no worker for {NO_WORKER_SECONDS:g} seconds. Start workers, with a nanny to "
                "replace those that die. What a run has finished is kept: the same command goes on from there."
            )
        return threads

    def fill(self, threads: int) -> None:
        """Submit shards until enough are in flight for this many threads."""
        while self.waiting and len(self.running) < SHARDS_PER_THREAD_IN_FLIGHT * max(1, threads):
            shard = self.waiting.popleft()
            future = self.runner.submit(self.task, {"shard": shard})
            self.running[future.wrapped_future] = (shard, future)

    def collect(self) -> Iterator[R | ShardFailure]:
        """Wait up to `TICK_SECONDS` for shards to end, and yield the results of those that have."""
        for done in _ended(self.runner.client, list(self.running)):
            end = _end_of(done)
            if end is None:
                continue
            shard, future = self.running.pop(done)
            outcome = self._outcome(shard, future.task_run_id, end)
            # As long as a result is held, Dask computes it again if the worker that has it dies.
            done.release()
            if outcome is not None:
                yield outcome

    def _outcome(self, shard: ShardRef, task_run_id: UUID, end: State[R] | Exception) -> R | ShardFailure | None:
        """Return the result of a task that has ended; None if its shard gets another attempt."""
        import distributed

        if isinstance(end, distributed.KilledWorker):
            reason = "its workers were lost: most often it is memory that they lack"
            return self._lost(shard, task_run_id, f"its worker {end.last_worker.address} was lost", reason)
        if isinstance(end, distributed.CancelledError):
            what = f"it was cancelled on the Dask cluster ({getattr(end, 'reason', 'unknown')})"
            return self._lost(shard, task_run_id, what, f"{what}, as if somebody kept restarting that")
        if isinstance(end, Exception):
            # Raised around the task: what a task raises itself is in its state.
            reason = _why_not_run(end)
            self.unmarked += mark_crashed([(task_run_id, reason)])
            return self._again(shard, reason)
        self.lost_unbegun.clear()
        if end.is_completed():
            result: R = end.result(_sync=True)  # type: ignore[call-overload]
            return result
        if isinstance(problem := data_of(end), DestinationError):
            raise problem  # every other shard would fail, too
        return self._again(shard, end.message or end.name or "")

    def _lost(self, shard: ShardRef, task_run_id: UUID, what: str, reason: str) -> ShardFailure | None:
        message = f"{shard.label.capitalize()}: {what}"
        get_run_logger().warning(message)
        self.unmarked += mark_crashed([(task_run_id, message)])
        if (shard.number, shard.attempt) not in self.begun and self.lost_unbegun[shard.number] < MAX_LOST_UNBEGUN:
            self.lost_unbegun[shard.number] += 1
            self.waiting.appendleft(shard)
            return None
        self.lost_unbegun.clear()
        return self._again(shard, reason)

    def _again(self, shard: ShardRef, reason: str) -> ShardFailure | None:
        """Queue another attempt at a shard, unless too many in a row finished no image."""
        number, parts = shard.number, len(shard.workspace.journal_parts(shard.number))
        self.fruitless[number] = 0 if parts > self.parts.get(number, 0) else self.fruitless[number] + 1
        self.parts[number] = parts
        if self.fruitless[number] >= MAX_FRUITLESS_ATTEMPTS:
            return ShardFailure(shard, reason)
        self.waiting.appendleft(shard.model_copy(update={"attempt": shard.attempt + 1}))
        return None


def _ended(client: distributed.Client, futures: list[distributed.Future[Any]]) -> list[distributed.Future[Any]]:
    import distributed

    with client.as_current():
        try:
            return list(distributed.wait(futures, timeout=TICK_SECONDS, return_when="FIRST_COMPLETED").done)
        except TimeoutError:
            return []
        except distributed.client.FuturesCancelledError as error:
            if any(group.reason == CONNECTION_LOST for group in error.error_groups):
                raise _scheduler_lost() from error
            return [future for future in futures if future.done()]


def _scheduler_lost() -> ClusterError:
    return ClusterError(
        "The Dask scheduler was lost. What a run has finished is kept: the same command goes on from there."
    )


def _end_of(future: distributed.Future[Any]) -> State[Any] | Exception | None:
    """Return the state in which a task has ended, or the exception instead of one; None if it is not available yet.

    The worker that has it may have died, so that Dask runs the task again, or it does not answer.
    """
    try:
        state: State[Any] = future.result(timeout=FETCH_SECONDS)
    except OSError as error:  # includes TimeoutError
        return error if future.status == "error" else None
    except Exception as error:  # noqa: BLE001 - any error here concerns this shard only
        return error
    return state


def _why_not_run(error: Exception) -> str:
    what = f"({type(error).__name__}: {error})"
    if isinstance(error, ImportError | AttributeError | UnpicklingError):
        return (
            f"a worker could not load the task {what}. Install the same Darkroom, from the same requirements.lock, on "
            "the scheduler and every worker."
        )
    return f"a worker could not run the task {what}. See what its log says, and whether it reaches the Prefect server."
