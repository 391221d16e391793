"""Prefect flows that bring their own server where there is none."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, ParamSpec, TypeVar

from prefect import Flow
from prefect.context import FlowRunContext
from prefect.results import ResultRecord
from prefect.runtime import flow_run
from prefect.states import Failed, State

from darkroom.flows.runtime.local_server import api
from darkroom.tasks.errors import DarkroomError

P = ParamSpec("P")
R = TypeVar("R")


class ServedFlow(Flow[P, R]):
    """An ordinary flow, which, called without a Prefect API, runs one for itself and its workers."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the flow; see `prefect.Flow`."""
        with api():
            return super().__call__(*args, **kwargs)


def served_flow(**options: Any) -> Callable[[Callable[P, R]], ServedFlow[P, R]]:
    """Make a flow of a function; takes what `prefect.flow` takes."""

    def decorate(function: Callable[P, R]) -> ServedFlow[P, R]:
        return ServedFlow(function, **options)

    return decorate


def failed(failure: DarkroomError) -> State[Any]:
    """Return the state in which a flow run ends that failed.

    Raises:
        DarkroomError: the failure itself, if Prefect is to try again: it does so only after an exception.
    """
    logging.getLogger("prefect.flow_runs").addFilter(_without_traceback)
    if _tries_left():
        raise failure
    # Not an exception: the message is what a user needs, a traceback isn't.
    return Failed(message=str(failure), data=failure)


def _tries_left() -> bool:
    context = FlowRunContext.get()
    if not context or not context.flow_run:
        return False
    run = context.flow_run
    return run.run_count <= (run.empirical_policy.retries or 0)


def _without_traceback(record: logging.LogRecord) -> bool:
    """Leave out of a log record where a failure came from that says all there is to know."""
    if record.exc_info and isinstance(record.exc_info[1], DarkroomError):
        record.exc_info = None
    return True


def data_of(state: State[Any]) -> Any:
    """Return what an ended flow run has in its state: what it came to, or what it failed with."""
    return state.data.result if isinstance(state.data, ResultRecord) else state.data


def run_name(prefix: str = "") -> str:
    """Return a flow run's name, by which one sees the dataset and when the run began; a retry keeps it."""
    if flow_run.run_count:
        return str(flow_run.name)
    # Not where it really lies: a name that can't be resolved is for the flow to complain of.
    dataset = os.path.basename(os.path.abspath(flow_run.parameters["destination"]))
    return f"{prefix}{dataset} {datetime.now(UTC):%Y-%m-%d %H:%M}"
