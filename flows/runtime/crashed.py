"""Mark runs and task runs as Crashed in Prefect whose processes died: they would stay Running in the UI."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from http import HTTPStatus
from logging import getLogger
from typing import Any, get_args
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.states import Crashed, State

from darkroom.tasks.dataset.layout import Destination, WorkKind
from darkroom.tasks.dataset.lease import HeldLease

PAGE = 200
"""Task runs per request; servers return no more."""

UNENDED = TaskRunFilter(
    state=TaskRunFilterState(type=TaskRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING]))
)

logger = getLogger(__name__)


def mark_crashed(lost: list[tuple[UUID, str]], state: Callable[..., State[Any]] = Crashed) -> list[tuple[UUID, str]]:
    """Mark task runs as Crashed, or another state, with a message each; return those that the server doesn't know yet.

    The server learns of task runs through events: later, if one has just begun, and never if it did not begin.
    """
    unknown = []
    with get_client(sync_client=True) as client:
        for number, (task_run_id, message) in enumerate(lost):
            try:
                client.set_task_run_state(task_run_id, state(message=message), force=True)
            except PrefectHTTPStatusError as error:
                unknown.append((task_run_id, message))
                if error.response.status_code != HTTPStatus.NOT_FOUND:
                    logger.warning("Prefect did not accept: %s", message, exc_info=True)
            except httpx.HTTPError:
                logger.warning("Prefect could not be reached to report: %s", message, exc_info=True)
                return unknown + lost[number:]
    return unknown


def mark_dead_runs(destination: Destination, lease: HeldLease) -> None:
    """Mark the flow runs as Crashed that died at a destination, and their task runs, if Prefect has them as running.

    Args:
        destination: its working folders show which runs died.
        lease: of the present run; the lease that it took over belonged to another dead run.
    """
    dead = {workspace.flow_run_id for kind in get_args(WorkKind) for workspace in destination.workspaces(kind)}
    if lease.taken_from:
        dead.add(lease.taken_from.run_id)
    if not dead:
        return
    with get_client(sync_client=True) as client:
        for run_id in dead:
            try:
                with suppress(ObjectNotFound, ValueError):  # a run of another server, or not a run's id
                    _mark_dead(client, UUID(run_id), by=UUID(lease.lease.run_id))
            except httpx.HTTPError:
                logger.warning("Flow run %s died and could not be marked as Crashed.", run_id, exc_info=True)


def _mark_dead(client: SyncPrefectClient, dead: UUID, by: UUID) -> None:
    crashed: State[Any] = Crashed(message=f"Its process died. What it left was taken over by flow run {by}.")
    run = client.read_flow_run(dead)
    if dead != by and run.state and run.state.is_running():  # equal if this is a retry of the same flow run
        client.set_flow_run_state(dead, crashed, force=True)
    # This run, if it is a retry, has no task run yet.
    _mark_task_runs(client, dead, crashed)


def mark_left_task_runs(pool: str) -> list[str]:
    """Mark the task runs as Crashed that flow runs of a work pool have left unended when their processes were killed.

    Prefect's worker, which marks those flow runs, marks neither their task runs nor their subflows.

    Returns:
        The names of the flow runs.

    Raises:
        HTTPError: the server does not answer, or refuses.
    """
    killed = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.CRASHED, StateType.CANCELLED]))
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=killed),
            task_run_filter=UNENDED,
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
        )
        for run in runs:
            with suppress(ObjectNotFound):  # somebody has just deleted it
                _mark_left(client, run.id)
        return [run.name for run in runs]


def _mark_left(client: SyncPrefectClient, ended: UUID) -> None:
    crashed: State[Any] = Crashed(message="The process of its flow run was killed.")
    subflows = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[ended]))
    for subflow in client.read_flow_runs(flow_run_filter=subflows):
        if subflow.deployment_id:
            continue  # it has a process of its own
        if subflow.state and not subflow.state.is_final():
            client.set_flow_run_state(subflow.id, crashed, force=True)
        _mark_left(client, subflow.id)
    _mark_task_runs(client, ended, crashed)


def _mark_task_runs(client: SyncPrefectClient, flow_run_id: UUID, crashed: State[Any]) -> None:
    """Mark the unended task runs of a flow run as Crashed."""
    for task_run_id in list(_unended_task_runs(client, flow_run_id)):
        with suppress(ObjectNotFound):
            client.set_task_run_state(task_run_id, crashed, force=True)


def _unended_task_runs(client: SyncPrefectClient, flow_run_id: UUID) -> Iterator[UUID]:
    of_flow_run = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
    offset = 0
    while page := client.read_task_runs(
        flow_run_filter=of_flow_run,
        task_run_filter=UNENDED,
        limit=PAGE,
        offset=offset,
    ):
        yield from (task_run.id for task_run in page)
        offset += len(page)
