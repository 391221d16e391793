"""Updating automations; tests/deployments/test_deploy.py tests their effects."""

from __future__ import annotations

from installation import Installation

from darkroom.deployments import automations


def test_an_update_keeps_an_automation_paused_and_deletes_duplicates(server: Installation):
    former = automations.zombies().model_copy(update={"description": "Former."})
    with server.client() as client:
        first = client.create_automation(former)
        client.create_automation(former)
        for automation in client.read_automations_by_name(automations.ZOMBIES):
            client.pause_automation(automation.id)

        automations.put(client, automations.zombies())

    updated = server.automations()[automations.ZOMBIES]
    assert updated["description"] == automations.zombies().description
    assert not updated["enabled"]
    assert updated["id"] == str(first)
