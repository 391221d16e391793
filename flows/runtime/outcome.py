"""How flow runs of Darkroom begin and end: their Prefect API, name, stages, report and state."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, ParamSpec, TypeVar, cast

from prefect import Flow, Task
from prefect.cache_policies import NO_CACHE
from prefect.results import ResultRecord
from prefect.runtime import flow_run
from prefect.states import Completed, Failed, State
from pydantic_core import to_jsonable_python

from darkroom.flows.runtime.cluster import is_local
from darkroom.flows.runtime.local_server import api
from darkroom.flows.runtime.main_guard import check_main_guard
from darkroom.flows.runtime.signals import interruptible
from darkroom.tasks.errors import DarkroomError
from darkroom.tasks.reporting.report import Report, first_problems
from darkroom.tasks.settings import Compute

P = ParamSpec("P")
R = TypeVar("R")
Reported = TypeVar("Reported", bound=Report)


class FlowWithApi(Flow[P, R]):
    """An ordinary flow that starts a local Prefect server when it is called without one."""

    def serialize_parameters(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Return the parameters as JSON values; Prefect's method does the same, but imports FastAPI for 0.15 s."""
        values: dict[str, Any] = to_jsonable_python(parameters, fallback=lambda value: f"<{type(value).__name__}>")
        return values

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the flow; see `prefect.Flow`. Locations may be given as `pathlib.Path`.

        Raises:
            SettingsError: workers are started on this machine, and the calling script has no guard.
        """
        args = tuple(map(_as_text, args))
        kwargs = {name: _as_text(value) for name, value in kwargs.items()}
        compute = dict(zip(self.parameters.properties, args, strict=False), **kwargs).get("compute", Compute())
        if is_local(compute if isinstance(compute, Compute) else Compute.model_validate(compute)):
            check_main_guard()
        with api():
            return super().__call__(*args, **kwargs)


def _as_text(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def flow_with_api(**options: Any) -> Callable[[Callable[P, R]], FlowWithApi[P, R]]:
    """Return a decorator like `prefect.flow`, for a flow that starts a local Prefect server if there is none."""
    return lambda function: FlowWithApi(function, **options)


def run_name(prefix: str = "") -> str:
    """Return a flow run's name: the dataset and when the run began; a retry keeps it."""
    if flow_run.run_count:
        return str(flow_run.name)
    # abspath, not resolve: the flow itself reports a path that can't be resolved.
    dataset = os.path.basename(os.path.abspath(flow_run.parameters["destination"]))
    return f"{prefix}{dataset} {datetime.now(UTC):%Y-%m-%d %H:%M}"


def run_stage(name: str, stage: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function as a task run of the current flow run, in this thread; return or raise what it does."""
    logging.getLogger("prefect.task_runs").addFilter(_without_traceback)
    # Arguments are bound here because Prefect searches a task's parameters for futures, however large they are.
    task = Task(
        partial(stage, *args, **kwargs),
        name=name.partition(" ")[0],
        task_run_name=lambda: name,
        cache_policy=NO_CACHE,
        persist_result=False,
        log_prints=False,
        retries=0,
    )
    return task()


class RunFailedError(DarkroomError):
    """A run ended and counts as failed; has its report."""

    def __init__(self, report: Report) -> None:
        super().__init__(report)  # as arguments, so that it can be pickled
        self.report = report

    def __str__(self) -> str:
        return self.report.failure()


def run_reported(
    stages: Callable[[], None],
    report: Callable[[str], Reported],
    failure: Callable[[Reported], RunFailedError] = RunFailedError,
) -> State[Reported]:
    """Run a flow's stages, then report what came of them, also if they failed; return the flow run's state.

    Args:
        stages: runs them; what it raises ends the run.
        report: builds and publishes the report, given why the stages ended early, or an empty string.
        failure: the error of a run that ended but did not succeed.
    """
    error: DarkroomError | None = None
    try:
        with interruptible():
            stages()
    except DarkroomError as raised:
        error = raised
    except Exception as bug:
        run_stage("report", report, f"Unexpected {type(bug).__name__}: {bug}")
        raise
    result = run_stage("report", report, str(error or ""))
    if result.succeeded:
        return Completed(message=result.headline(), data=result)
    message = "\n".join(first_problems(result.problems)) if error else result.failure()
    # Returned and not raised: users need the message, not a traceback. Prefect retries either.
    return Failed(message=message, data=error or failure(result))


def _without_traceback(record: logging.LogRecord) -> bool:
    """Remove the traceback of an error of Darkroom from a log record: its message is complete."""
    if record.exc_info and isinstance(record.exc_info[1], DarkroomError):
        record.exc_info = None
    return True


def data_of(state: State[Any]) -> Any:
    """Return the result in a state, or the exception."""
    return state.data.result if isinstance(state.data, ResultRecord) else state.data


def report_of(state: State[Reported]) -> Reported | None:
    """Return the report in a flow run's state; None if the run ended before there was anything to report."""
    data = data_of(state)
    report = data.report if isinstance(data, RunFailedError) else data
    return cast(Reported, report) if isinstance(report, Report) else None
