"""What the server does by itself: mark runs that died as Crashed, and tell somebody of a bad night."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

TAG = "darkroom"
"""The deployments that have it are looked after."""

HEARTBEAT_SECONDS = 30
"""How often a deployed flow run tells that it is alive; set in `prefect.yaml`, and the least that Prefect takes."""

MISSED_HEARTBEATS = 3

START_SECONDS = 180
"""So long a worker may take to start a flow run's process."""

ZOMBIES = "darkroom: runs that died are marked Crashed"
UNSTARTED = "darkroom: runs that never began are marked Crashed"
NOTIFICATION = "darkroom: somebody is told of runs that failed or crashed"

HEARTBEAT = "prefect.flow-run.heartbeat"
BAD_ENDS = {f"prefect.flow-run.{name}" for name in ("Failed", "TimedOut", "Crashed")}
ENDS = BAD_ENDS | {f"prefect.flow-run.{name}" for name in ("Completed", "Cancelled")}

FLOW_RUNS = ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"})
TAGGED = ResourceSpecification({"prefect.resource.id": f"prefect.tag.{TAG}", "prefect.resource.role": "tag"})


def zombies() -> AutomationCore:
    """Return the automation that marks a run as Crashed when its heartbeat stops and it has not ended."""
    seconds = MISSED_HEARTBEATS * HEARTBEAT_SECONDS
    message = (
        f"Its process died: no heartbeat for {seconds} s. What is finished is kept: the next run, or a retry of this "
        "one, goes on from there."
    )
    return AutomationCore(
        name=ZOMBIES,
        description=f"A run that misses {MISSED_HEARTBEATS} heartbeats has died. Kept up to date by `make deploy`.",
        trigger=_nothing_after(HEARTBEAT, {HEARTBEAT} | ENDS, seconds),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=message)],
    )


def unstarted() -> AutomationCore:
    """Return the automation that marks a run as Crashed that its worker took, and that never began.

    So it is when a worker's machine dies, or the worker is stopped, just then. Such a run keeps its deployment's only
    place.
    """
    message = f"It did not begin within {START_SECONDS} s after a worker had taken it. Nothing was done."
    return AutomationCore(
        name=UNSTARTED,
        description=f"A run that is Pending for {START_SECONDS} s was lost. Kept up to date by `make deploy`.",
        trigger=_nothing_after("prefect.flow-run.Pending", {"prefect.flow-run.Running"} | ENDS, START_SECONDS),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=message)],
    )


def _nothing_after(event: str, expected: set[str], seconds: int) -> EventTrigger:
    """Return what fires when a run that is looked after sends none of the expected events for so long after another."""
    return EventTrigger(
        after={event},
        expect=expected,
        match=FLOW_RUNS,
        match_related=TAGGED,
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=seconds),
    )


def notification(block_document_id: UUID, ui_url: str) -> AutomationCore:
    """Return the automation that sends a notification when a run ends as Failed or Crashed.

    Args:
        block_document_id: the notification block to send it with.
        ui_url: where people find the UI.
    """
    return AutomationCore(
        name=NOTIFICATION,
        description="Sent where DARKROOM_NOTIFY points to. Kept up to date by `make deploy`.",
        trigger=EventTrigger(
            expect=BAD_ENDS,
            match=FLOW_RUNS,
            match_related=TAGGED,
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[
            SendNotification(
                block_document_id=block_document_id,
                subject="Darkroom: {{ flow_run.name }} {{ event.resource['prefect.state-name'] }}",
                body="{{ deployment.name }}: {{ flow_run.name }} ended as {{ event.resource['prefect.state-name'] }}.\n"
                "{{ event.resource['prefect.state-message'] }}\n"
                f"{ui_url}/runs/flow-run/{{{{ flow_run.id }}}}",
            )
        ],
    )


def put(client: SyncPrefectClient, wanted: AutomationCore) -> None:
    """Create an automation, or bring the one of its name up to date; one that a user has paused stays so.

    One that is as it should be is left alone: with an update, the server forgets whose heartbeats it waits for.
    """
    known = client.read_automations_by_name(wanted.name)
    if not known:
        client.create_automation(wanted)
    for automation in known[:1]:
        wanted = wanted.model_copy(update={"enabled": automation.enabled})
        if AutomationCore.model_validate(automation.model_dump()) != wanted:
            client.update_automation(automation.id, wanted)
    for duplicate in known[1:]:
        client.delete_automation(duplicate.id)
