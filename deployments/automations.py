"""Automations of the Prefect server: mark dead runs as Crashed, notify of runs that failed or crashed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

from darkroom.flows.runtime.outcome import STOPPED

TAG = "darkroom"
"""Automations apply to the runs of deployments with this tag."""

HEARTBEAT_SECONDS = 30
"""Interval of a deployed flow run's heartbeats, set in `prefect.yaml`; Prefect allows no shorter one."""

MISSED_HEARTBEATS = 3

START_SECONDS = 180
"""Time for a worker to start a flow run's process."""

# The server knows automations by name: a renamed one would leave the old one behind.
ZOMBIES = "darkroom: runs that died are marked Crashed"
UNSTARTED = "darkroom: runs that never began are marked Crashed"
NOTIFICATION = "darkroom: somebody is told of runs that failed or crashed"

HEARTBEAT = "prefect.flow-run.heartbeat"
PENDING = "prefect.flow-run.Pending"
BAD_ENDS = {f"prefect.flow-run.{name}" for name in ("Failed", "TimedOut", "Crashed", STOPPED)}
ENDS = BAD_ENDS | {f"prefect.flow-run.{name}" for name in ("Completed", "Cancelled")}


def zombies() -> AutomationCore:
    """Return the automation that marks a run as Crashed when its heartbeats stop before it has ended."""
    seconds = MISSED_HEARTBEATS * HEARTBEAT_SECONDS
    return _mark_crashed(
        ZOMBIES,
        f"A run that misses {MISSED_HEARTBEATS} heartbeats has died. Kept up to date by `make deploy`.",
        _silence(HEARTBEAT, {HEARTBEAT} | ENDS, seconds),
        f"Its process died: no heartbeat for {seconds} s. What is finished is kept: the next run, or a retry of this "
        "one, goes on from there.",
    )


def unstarted() -> AutomationCore:
    """Return the automation that marks a run as Crashed if it never began because its worker stopped just then."""
    return _mark_crashed(
        UNSTARTED,
        f"A run that is Pending for {START_SECONDS} s was lost. Kept up to date by `make deploy`.",
        _silence(PENDING, {"prefect.flow-run.Running"} | ENDS, START_SECONDS),
        f"It did not begin within {START_SECONDS} s after a worker had taken it. Nothing was done.",
    )


def _mark_crashed(name: str, description: str, trigger: EventTrigger, message: str) -> AutomationCore:
    """Return the automation that sets a run's state to Crashed with a message."""
    action = ChangeFlowRunState(state=StateType.CRASHED, message=message)
    return AutomationCore(name=name, description=description, trigger=trigger, actions=[action])


def _silence(event: str, expected: set[str], seconds: int) -> EventTrigger:
    """Return the trigger that fires when a run sends `event`, then none of the expected events for some seconds."""
    return _trigger(after={event}, expect=expected, posture=Posture.Proactive, within=timedelta(seconds=seconds))


def _trigger(**conditions: Any) -> EventTrigger:
    """Return a trigger on events of the tagged deployments' runs, separate for each run."""
    return EventTrigger(
        match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
        match_related=ResourceSpecification(
            {"prefect.resource.id": f"prefect.tag.{TAG}", "prefect.resource.role": "tag"}
        ),
        for_each={"prefect.resource.id"},
        threshold=1,
        **conditions,
    )


def notification(block_document_id: UUID, ui_url: str) -> AutomationCore:
    """Return the automation that sends a notification when a run ends as Failed, Crashed or Stopped.

    Args:
        block_document_id: the notification block that sends it.
        ui_url: the address of the UI, for the link to the run's page.
    """
    state = "{{ event.resource['prefect.state-name'] }}"
    action = SendNotification(
        block_document_id=block_document_id,
        subject=f"Darkroom: {{{{ flow_run.name }}}} {state}",
        body=f"{{{{ deployment.name }}}}: {{{{ flow_run.name }}}} ended as {state}.\n"
        "{{ event.resource['prefect.state-message'] }}\n"
        f"{ui_url}/runs/flow-run/{{{{ flow_run.id }}}}",
    )
    return AutomationCore(
        name=NOTIFICATION,
        description="Sent where DARKROOM_NOTIFY points to. Kept up to date by `make deploy`.",
        trigger=_trigger(expect=BAD_ENDS, posture=Posture.Reactive),
        actions=[action],
    )


def put(client: SyncPrefectClient, wanted: AutomationCore) -> None:
    """Create an automation, or update the one of the same name, which stays paused if a user has paused it.

    An automation that is up to date is not written: after an update, the server no longer expects pending heartbeats.
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
