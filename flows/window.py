"""The window of shards in flight, and what a lost worker means."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from logging import getLogger
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from flows.cluster import count_threads
from tasks.errors import ClusterError
from tasks.shard import PROGRESS_TOPIC, ShardRef

if TYPE_CHECKING:
    from uuid import UUID

    import distributed
    from prefect import Task
    from prefect_dask import DaskTaskRunner
    from prefect_dask.task_runners import PrefectDaskFuture

R = TypeVar("R")

SHARDS_PER_THREAD_IN_FLIGHT = 2
TICK_SECONDS = 0.5
MAX_ATTEMPTS = 3
MAX_LOST_UNBEGUN = 5

logger = getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ShardFailure:
    """A shard that could not be worked, and why."""

    shard: ShardRef
    reason: str


def run_shards(
    runner: DaskTaskRunner,
    task: Task[[ShardRef], R],
    shards: Sequence[ShardRef],
    hear: Callable[[dict[str, int]], None],
    tick: Callable[[], None],
) -> Iterator[R | ShardFailure]:
    """Run a task for every shard, a few per worker at a time, and yield what came of it as it ends.

    A shard whose worker died, or whose task failed, is given to another attempt, which goes on where the
    journal ends; after `MAX_ATTEMPTS` it is yielded as a failure.

    Args:
        runner: where the tasks run.
        task: what is done with a shard; its parameter is called `shard`.
        shards: the shards.
        hear: called, in another thread, with the progress that a worker tells.
        tick: called several times a second; what it raises ends the run.
    """
    client: Any = runner.client
    client.subscribe_topic(PROGRESS_TOPIC, lambda event: hear(event[1]))
    window = _Window(runner, task, deque(shards))
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
class _Window(Generic[R]):
    """The shards in flight: enough that no worker waits, few enough that no scheduler drowns."""

    runner: DaskTaskRunner
    task: Task[[ShardRef], R]
    waiting: deque[ShardRef]
    running: dict[distributed.Future[Any], tuple[ShardRef, PrefectDaskFuture[R]]] = field(default_factory=dict)
    lost_unbegun: Counter[int] = field(default_factory=Counter)
    """By shard: how often it was lost in the queue of a worker that died of something else."""

    unknown: list[tuple[UUID, str]] = field(default_factory=list)
    """Lost task runs that the server had not heard of yet, and what to tell it."""

    def fill(self) -> None:
        """Submit shards until there are enough in flight."""
        if not self.waiting:
            return
        threads = count_threads(self.runner.client)
        while self.waiting and len(self.running) < SHARDS_PER_THREAD_IN_FLIGHT * max(1, threads):
            shard = self.waiting.popleft()
            future = self.runner.submit(self.task, {"shard": shard})
            self.running[future.wrapped_future] = (shard, future)

    def collect(self) -> Iterator[R | ShardFailure]:
        """Yield what came of the shards that have ended, after waiting a tick for the first of them."""
        for done in _ended(self.runner.client, list(self.running)):
            shard, future = self.running.pop(done)
            outcome = self._outcome(shard, future)
            # While a result is held, Dask would compute it again if the worker that has it died.
            done.release()
            if outcome:
                yield outcome

    def _outcome(self, shard: ShardRef, future: PrefectDaskFuture[R]) -> R | ShardFailure | None:
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
            result: R = state.result(_sync=True)
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
        except distributed.client.FuturesCancelledError as error:
            raise ClusterError(
                "The Dask scheduler was lost. What a run has finished is kept: the same command goes on from there."
            ) from error


def _mark_crashed(task_run_id: UUID, message: str) -> bool:
    """Tell Prefect that a task run is dead, and return whether it knows the run.

    Nobody else tells it, and the run would stay Running in the UI. The server hears of task runs by events:
    of one that has just begun it may not have heard yet, of one that never began it never will.
    """
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.states import Crashed

    with get_client(sync_client=True) as client:
        try:
            client.set_task_run_state(task_run_id, Crashed(message=message), force=True)
        except PrefectHTTPStatusError as error:
            if error.response.status_code != HTTPStatus.NOT_FOUND:
                logger.warning("Prefect could not be told: %s", message, exc_info=True)
            return False
        except httpx.HTTPError:
            logger.warning("Prefect could not be told: %s", message, exc_info=True)
    return True
