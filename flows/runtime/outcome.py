"""How flow runs of Darkroom begin and end: their Prefect API, name, stages, report and state."""

from __future__ import annotations

import inspect
import logging
import os
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, ParamSpec, TypeVar, cast

from prefect import Flow, Task, get_client
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext
from prefect.exceptions import TerminationSignal
from prefect.results import ResultRecord
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed, State
from pydantic_core import to_jsonable_python

from darkroom.flows.runtime.cluster import is_local
from darkroom.flows.runtime.local_server import api
from darkroom.flows.runtime.main_guard import check_main_guard
from darkroom.flows.runtime.signals import interruptible
from darkroom.tasks.errors import DarkroomError, InUseError, SettingsError
from darkroom.tasks.reporting.report import Report, first_problems
from darkroom.tasks.reporting.text import first_sentence
from darkroom.tasks.settings import Compute

P = ParamSpec("P")
R = TypeVar("R")
Reported = TypeVar("Reported", bound=Report)

CALL_OPTIONS = {"return_state", "wait_for"}
"""Arguments of a call of a flow that are not parameters of its function."""

INTERRUPTIONS = (KeyboardInterrupt, SystemExit, TerminationSignal)
"""What signals raise in a flow run."""

STOPPED = "Stopped"
"""The name of the Cancelled state of a run that a signal ended without a request to Prefect to cancel it."""


class StoppedError(DarkroomError):
    """A flow run was interrupted; has the exception that interrupted it."""

    def __init__(self, interruption: BaseException) -> None:
        super().__init__(interruption)
        self.interruption = interruption


class FlowWithApi(Flow[P, R]):
    """An ordinary flow that starts a local Prefect server when it is called without one.

    Args:
        function: the flow's function.
        check: called with a call's arguments, by name, before anything is started; raises `SettingsError`.
        options: those of `prefect.Flow`.
    """

    def __init__(self, function: Callable[P, R], check: Callable[..., None], **options: Any) -> None:
        super().__init__(function, **options)
        self._check = check

    def serialize_parameters(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Return the parameters as JSON values, without Prefect's import of FastAPI, which takes 0.15 s."""
        values: dict[str, Any] = to_jsonable_python(parameters, fallback=lambda value: f"<{type(value).__name__}>")
        return values

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the flow; see `prefect.Flow`. Parameters may be paths.

        Raises:
            TypeError: the function takes no such arguments.
            SettingsError: an argument is wrong, and `return_state` isn't set; or workers would start on this machine,
                and the calling script has no guard.
            KeyboardInterrupt, SystemExit, TerminationSignal: a signal ended the flow, and its state is stored.
        """
        args = tuple(map(_as_text, args))
        kwargs = {name: _as_text(value) for name, value in kwargs.items()}
        given = inspect.signature(self.fn).bind(*args, **{k: v for k, v in kwargs.items() if k not in CALL_OPTIONS})
        given.apply_defaults()
        if not kwargs.get("return_state"):  # otherwise the flow run's state says what is wrong
            self._check(**given.arguments)
        if _starts_workers(given.arguments["compute"]):
            check_main_guard()
        with api():
            try:
                result = super().__call__(*args, **kwargs)
            except StoppedError as stopped:
                error: Any = stopped
            else:
                error = data_of(result) if isinstance(result, State) else None
            if not isinstance(error, StoppedError):
                return result
            interruption = error.interruption
            if isinstance(interruption, TerminationSignal) and not FlowRunContext.get():
                raise SystemExit(128 + interruption.signal)
            raise interruption


def _starts_workers(compute: Any) -> bool:
    """Return whether workers start on this machine; with wrong settings, none do."""
    with suppress(SettingsError):
        return is_local(Compute.model_validate(compute))
    return False


def _as_text(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def flow_with_api(check: Callable[..., None], **options: Any) -> Callable[[Callable[P, R]], FlowWithApi[P, R]]:
    """Return a decorator like `prefect.flow` that makes a `FlowWithApi`."""
    return lambda function: FlowWithApi(function, check, **options)


def run_name(prefix: str = "") -> str:
    """Return a flow run's name, from the destination and the time in UTC; a retry keeps the name."""
    if flow_run.run_count:
        return str(flow_run.name)
    # abspath, not resolve, which fails on some paths: the flow reports those.
    dataset = os.path.basename(os.path.abspath(flow_run.parameters["destination"]))
    return f"{prefix}{dataset} {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"


def run_stage(name: str, stage: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function in this thread, as a task run of the current flow run; return its result or exception."""
    interruptions: list[BaseException] = []

    def run() -> R | State[Any]:
        # A closure: Prefect would search a task's parameters, however large, for futures. And an interruption that
        # reached Prefect would be logged as a crash.
        try:
            return stage(*args, **kwargs)
        except INTERRUPTIONS as interruption:
            interruptions.append(interruption)
            return Cancelled(name=STOPPED, message="The run was stopped.")

    task = Task(
        run,
        name=re.split("[: ]", name, maxsplit=1)[0],
        task_run_name=lambda: name,
        cache_policy=NO_CACHE,
        persist_result=False,
        log_prints=False,
        retries=0,
    )
    result = task()
    if interruptions:
        raise interruptions[0]
    return cast(R, result)


class RunFailedError(DarkroomError):
    """A run ended and counts as failed; has its report."""

    def __init__(self, report: Report) -> None:
        super().__init__(report)  # in args, by which exceptions are pickled
        self.report = report

    def __str__(self) -> str:
        return self.report.failure()


def run_reported(
    stages: Callable[[], None],
    build: Callable[[str, bool], Reported],
    publish: Callable[[Reported], Reported],
    failure: Callable[[Reported], RunFailedError] = RunFailedError,
) -> State[Reported]:
    """Run a flow's stages, publish a report on them even if they failed, and return the flow run's final state.

    Args:
        stages: runs the stages.
        build: builds the report from the reason why the stages ended early, or an empty string, and from whether the
            run was interrupted.
        publish: puts the report on the flow run's page, and returns it.
        failure: returns the error of a run that ended but did not succeed.
    """
    error: DarkroomError | None = None
    try:
        try:
            with interruptible():
                stages()
        except InUseError as overlap:
            # Not reported: the destination's latest summary belongs to the run that holds it.
            return Cancelled(message=str(overlap), data=overlap)
        except DarkroomError as raised:
            error = raised
        except Exception as bug:
            _publish_report(publish, build(f"Unexpected {type(bug).__name__}: {bug}", False))
            raise
        result = _publish_report(publish, build(str(error or ""), False))
    except INTERRUPTIONS as interruption:
        return _stopped(_publish_report(publish, build("", True)).headline(), interruption)
    if result.succeeded:
        return Completed(message=result.headline(), data=result)
    message = "\n".join(first_problems(result.problems)) if error else result.failure()
    # Returned, not raised: users need the message, not a traceback. Prefect retries both.
    return Failed(message=message, data=error or failure(result))


def _publish_report(publish: Callable[[Reported], Reported], report: Reported) -> Reported:
    """Publish a report in a task run named after the outcome, so that Prefect's list of them is a history."""
    outcome = first_sentence(report.headline())[0] if report.succeeded else "failed"
    return run_stage(f"report: {outcome}", publish, report)


def _stopped(message: str, interruption: BaseException) -> State[Any]:
    """Return the state of an interrupted run; Prefect's own would be Crashed."""
    with get_client(sync_client=True) as client:
        before = client.read_flow_run(flow_run.id).state
    requested = before is not None and before.is_cancelling()
    return Cancelled(name=None if requested else STOPPED, message=message, data=StoppedError(interruption))


def _without_traceback(record: logging.LogRecord) -> bool:
    """Log filter: remove the traceback of a `DarkroomError`, whose message is complete."""
    if record.exc_info and isinstance(record.exc_info[1], DarkroomError):
        record.exc_info = None
    return True


def _is_not_repeated(record: logging.LogRecord) -> bool:
    """Log filter: drop the traceback that Prefect logs at a run's end for the `DarkroomError` in its state."""
    return not (record.exc_info and isinstance(record.exc_info[1], DarkroomError))


logging.getLogger("prefect.task_runs").addFilter(_without_traceback)
logging.getLogger("prefect.flow_runs").addFilter(_is_not_repeated)


def data_of(state: State[Any]) -> Any:
    """Return the result or the exception in a state."""
    return state.data.result if isinstance(state.data, ResultRecord) else state.data


def report_of(state: State[Reported]) -> Reported | None:
    """Return the report in a flow run's final state; None if the run made none."""
    data = data_of(state)
    report = data.report if isinstance(data, RunFailedError) else data
    return cast(Reported, report) if isinstance(report, Report) else None
