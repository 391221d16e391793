"""Mark flow and task runs whose processes died as Crashed in Prefect: they would stay Running in the UI."""

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
    """Mark task runs as Crashed, or another state, each with a message; return those that the server doesn't know yet.

    The server learns of a task run from an event that arrives some time after it began.
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
    """Mark the flow runs that died at a destination, and their task runs, as Crashed if Prefect has them as running.

    Args:
        destination: its workspaces show which runs died.
        lease: the present run's; if it was taken over, its former holder died, too.
    """
    dead = {workspace.flow_run_id for kind in get_args(WorkKind) for workspace in destination.workspaces(kind)}
    if lease.taken_from:
        dead.add(lease.taken_from.run_id)
    if not dead:
        return
    with get_client(sync_client=True) as client:
        for run_id in dead:
            try:
                with suppress(ObjectNotFound, ValueError):  # a run of another server, or not a run id
                    _mark_dead(client, UUID(run_id), by=UUID(lease.lease.run_id))
            except httpx.HTTPError:
                logger.warning("Flow run %s died and could not be marked as Crashed.", run_id, exc_info=True)


def _mark_dead(client: SyncPrefectClient, dead: UUID, by: UUID) -> None:
    crashed: State[Any] = Crashed(message=f"Its process died. Flow run {by} has taken over its work.")
    run = client.read_flow_run(dead)
    if dead != by and run.state and run.state.is_running():  # equal if this is a retry of the same flow run
        client.set_flow_run_state(dead, crashed, force=True)
    # Also if `dead` is this run: as a retry, it has no task run of its own yet.
    _mark_task_runs(client, dead, crashed)


def mark_left_task_runs(pool: str) -> list[str]:
    """Mark unended task runs and subflows of a work pool's killed flow runs as Crashed; return those flow runs' names.

    Prefect's worker marks only the flow runs.

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
            with suppress(ObjectNotFound):  # it has just been deleted
                _mark_left(client, run.id)
        return [run.name for run in runs]


def _mark_left(client: SyncPrefectClient, ended: UUID) -> None:
    crashed: State[Any] = Crashed(message="The process of its flow run was killed.")
    subflows = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[ended]))
    for subflow in client.read_flow_runs(flow_run_filter=subflows):
        if subflow.deployment_id:
            continue  # it runs in another process
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
