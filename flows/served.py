"""Prefect flows that bring their own server where there is none."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, ParamSpec, TypeVar

from prefect import Flow
from prefect.results import ResultRecord
from prefect.states import State

from flows.server import api

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


def data_of(state: State[Any]) -> Any:
    """Return what an ended flow run has in its state: what it came to, or what it failed with."""
    return state.data.result if isinstance(state.data, ResultRecord) else state.data


def run_name(destination: str) -> str:
    """Return a flow run's name, by which one sees the dataset and when the run began."""
    # Not where it really lies: a name that can't be resolved is for the flow to complain of.
    return f"{os.path.basename(os.path.abspath(destination))} {datetime.now(UTC):%Y-%m-%d %H:%M}"
