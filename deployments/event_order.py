"""The order in which automations see events, for the Prefect server that Darkroom starts."""

from __future__ import annotations

from prefect.server.events.ordering.memory import CausalOrdering as InMemory
from prefect.server.events.schemas.events import ReceivedEvent


class CausalOrdering(InMemory):
    """Prefect's order, in which a scheduled run's first event does not wait for one that never comes.

    The event of each state of a run is held back until that of the state before has come, for up to 15 minutes. Of runs
    that a schedule makes, Prefect sends none for the first state, Scheduled. So automations would not see that such a
    run has ended, would take it for dead 90 s later, and would notify of its failure after 15 minutes. See
    https://github.com/PrefectHQ/prefect/issues/21932.
    """

    async def wait_for_leader(self, event: ReceivedEvent) -> None:
        """Wait for the event that this one follows; raise `EventArrivedEarly` if it must be held back."""
        if event.event != "prefect.flow-run.Pending":
            await super().wait_for_leader(event)
