"""Creating and updating automations; tests/deployments/test_deploy.py has what they do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from installation import Installation
from prefect.client.orchestration import SyncPrefectClient

from darkroom.deployments import automations


@pytest.fixture
def client(server: Installation) -> Iterator[SyncPrefectClient]:
    with server.client() as client:
        yield client


def test_an_automation_that_is_up_to_date_is_not_written(server: Installation, client: SyncPrefectClient):
    automations.put(client, automations.unstarted())
    created = server.automations()

    automations.put(client, automations.unstarted())

    assert set(created) == {automations.UNSTARTED}
    assert server.automations() == created, "it has the same time of its last update"


def test_an_update_keeps_it_paused_and_deletes_duplicates(server: Installation, client: SyncPrefectClient):
    former = automations.zombies().model_copy(update={"description": "Former."})
    first = client.create_automation(former)
    client.create_automation(former)
    for automation in client.read_automations_by_name(automations.ZOMBIES):
        client.pause_automation(automation.id)

    automations.put(client, automations.zombies())

    updated = server.automations()[automations.ZOMBIES]
    assert updated["description"] == automations.zombies().description
    assert not updated["enabled"]
    assert str(first) == updated["id"]
