"""Prefect flows that bring their own server where there is none."""

from __future__ import annotations

from collections.abc import Callable
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
