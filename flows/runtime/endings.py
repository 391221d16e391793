"""How attempts at shards end on a Dask cluster: with a Prefect state, or an exception raised outside the task."""

from __future__ import annotations

import time
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from darkroom.tasks.errors import ClusterError

if TYPE_CHECKING:
    import distributed
    from prefect.states import State

TICK_SECONDS = 0.5
FETCH_SECONDS = 2
CONNECTION_LOST = "scheduler-connection-lost"
"""The reason with which Dask's client cancels all futures when it loses its scheduler."""


def wait_for_any(client: distributed.Client, futures: list[distributed.Future[Any]]) -> list[distributed.Future[Any]]:
    """Return the futures that have ended, after waiting up to `TICK_SECONDS` for the first of them.

    Raises:
        ClusterError: the scheduler is lost.
    """
    import distributed

    if not futures:
        time.sleep(TICK_SECONDS)
        return []
    with client.as_current():
        try:
            return list(distributed.wait(futures, timeout=TICK_SECONDS, return_when="FIRST_COMPLETED").done)
        except TimeoutError:
            return []
        except distributed.client.FuturesCancelledError as error:
            if any(group.reason == CONNECTION_LOST for group in error.error_groups):
                raise scheduler_lost() from error
            return [future for future in futures if future.done()]


def scheduler_lost() -> ClusterError:
    """Return the error of a run whose scheduler is lost."""
    return ClusterError(
        "The Dask scheduler was lost. What a run has finished is kept: the same command goes on from there."
    )


def fetch_end(future: distributed.Future[Any]) -> State[Any] | Exception | None:
    """Return the final state of a task that has ended, or the exception that Dask raised for it.

    None if the worker that holds the result has died, so that Dask runs the task again, or does not answer.
    """
    try:
        state: State[Any] = future.result(timeout=FETCH_SECONDS)
    except OSError as error:  # includes TimeoutError
        return error if future.status == "error" else None
    except Exception as error:  # noqa: BLE001 - any error here concerns this attempt only
        return error
    return state


def why_not_run(error: Exception) -> str:
    """Return why a worker could not run a task, as a clause, and a remedy."""
    cause = f"({type(error).__name__}: {error})"
    if isinstance(error, ImportError | AttributeError | UnpicklingError):
        return (
            f"a worker could not load the task {cause}. Install the same Darkroom, from the same requirements.lock, on "
            "the scheduler and every worker."
        )
    return f"a worker could not run the task {cause}. See its log, and whether it reaches the Prefect server."
