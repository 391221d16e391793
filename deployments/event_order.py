"""The order in which automations see events, for the Prefect server that Darkroom starts."""

from __future__ import annotations

from collections import deque

from prefect.server.events.ordering import EventArrivedEarly
from prefect.server.events.ordering.memory import CausalOrdering as InMemory
from prefect.server.events.schemas.events import ReceivedEvent

from darkroom.deployments.automations import ENDS, HEARTBEAT, PENDING

_ended: deque[str] = deque(maxlen=10_000)
"""The resource ids of the latest runs that have ended."""


class CausalOrdering(InMemory):
    """Prefect's order, with two exceptions, so that no automation takes a run for dead that has ended.

    A scheduled run's first event does not wait for one that never comes: the event of each state is held back until
    that of the state before has come, for up to 15 minutes, but of runs that a schedule makes, Prefect sends none for
    the first state, Scheduled. Automations would not see that such a run has ended, and would notify of its failure
    after 15 minutes. See https://github.com/PrefectHQ/prefect/issues/21932.

    A heartbeat that comes after a run's end, which happens if it ends as it begins, is dropped. See
    https://github.com/PrefectHQ/prefect/issues/19598.
    """

    async def wait_for_leader(self, event: ReceivedEvent) -> None:
        """Wait for the event that this one follows; raise `EventArrivedEarly` if it is held back or dropped."""
        run = event.resource.id
        if event.event == HEARTBEAT and run in _ended:
            raise EventArrivedEarly(event)
        if event.event != PENDING:
            await super().wait_for_leader(event)
        if event.event in ENDS and run not in _ended:  # a run that was taken for dead ends twice
            _ended.append(run)
        elif event.event == PENDING and run in _ended:  # a retry
            _ended.remove(run)
