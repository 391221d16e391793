"""Which events automations see; test_deploy.py tests that they leave runs alone that have ended."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from uuid import UUID, uuid4

from prefect.server.events.ordering import EventArrivedEarly
from prefect.server.events.schemas.events import ReceivedEvent, Resource

from darkroom.deployments.event_order import CausalOrdering


def event(name: str, run: str, *, follows: UUID | None = None) -> ReceivedEvent:
    resource = Resource.model_validate({"prefect.resource.id": f"prefect.flow-run.{run}"})
    return ReceivedEvent(
        occurred=datetime.now(UTC), event=f"prefect.flow-run.{name}", resource=resource, id=uuid4(), follows=follows
    )


def evaluate(*events: ReceivedEvent) -> list[str]:
    """Return the names of the events that automations see."""
    seen: list[str] = []

    async def see() -> None:
        for each in events:
            with suppress(EventArrivedEarly):
                async with CausalOrdering(scope="test").preceding_event_confirmed(see_follower, each):
                    seen.append(each.event.rpartition(".")[2])

    async def see_follower(follower: ReceivedEvent, depth: int = 0) -> None:
        raise AssertionError(f"{follower.event} was held back, depth {depth}")

    asyncio.run(see())
    return seen


def test_only_the_first_event_of_a_scheduled_run_waits_for_no_other():
    pending = event("Pending", "scheduled", follows=uuid4())
    running = event("Running", "scheduled", follows=pending.id)
    assert evaluate(pending, running, event("Running", "other", follows=uuid4())) == ["Pending", "Running"]


def test_a_heartbeat_after_the_end_is_dropped_until_a_retry():
    beats = [event("heartbeat", "retried") for _ in range(3)]
    events = (beats[0], event("Cancelled", "retried"), beats[1], event("Pending", "retried"), beats[2])
    assert evaluate(*events) == ["heartbeat", "Cancelled", "Pending", "heartbeat"]


def test_the_retry_of_a_run_that_was_taken_for_dead_has_heartbeats():
    names = ("Crashed", "Completed", "Pending", "heartbeat")
    assert evaluate(*(event(name, "slept") for name in names)) == list(names)
