"""A scheduled run's first event waits for no other; test_deploy.py tests that automations leave its end alone."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from prefect.server.events.ordering import EventArrivedEarly
from prefect.server.events.schemas.events import ReceivedEvent, Resource

from darkroom.deployments.event_order import CausalOrdering


def event(name: str) -> ReceivedEvent:
    """Return an event of a flow run that follows one that never came."""
    resource = Resource.model_validate({"prefect.resource.id": f"prefect.flow-run.{uuid4()}"})
    return ReceivedEvent(occurred=datetime.now(UTC), event=name, resource=resource, id=uuid4(), follows=uuid4())


async def wait_for_leader(name: str) -> None:
    await CausalOrdering(scope="test").wait_for_leader(event(name))


def test_only_the_first_event_of_a_scheduled_run_waits_for_no_other():
    asyncio.run(wait_for_leader("prefect.flow-run.Pending"))
    with pytest.raises(EventArrivedEarly):
        asyncio.run(wait_for_leader("prefect.flow-run.Running"))
