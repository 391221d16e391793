"""The targets of notifications; tests/deployments/test_deploy.py tests their contents."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from installation import Installation
from prefect.client.orchestration import SyncPrefectClient
from prefect.settings import PREFECT_API_URL, temporary_settings

from darkroom.deployments.notify import BLOCK, notification_block
from darkroom.tasks.errors import SettingsError

# Apprise imports it where Python still has it.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")


@pytest.fixture
def client(server: Installation) -> Iterator[SyncPrefectClient]:
    api_url = server.environment["PREFECT_API_URL"]
    with temporary_settings({PREFECT_API_URL: api_url}), server.client() as client:
        yield client


def test_a_url_becomes_the_only_block_and_stays_secret(client: SyncPrefectClient):
    for url, kind in [
        ("https://hooks.slack.com/services/T00000000/B00000000/s3cret", "slack-webhook"),
        ("https://chat.example.com/hooks/s3cret", "custom-webhook"),
        ("mailtos://user:s3cret@example.com?to=me@example.com", "slack-webhook"),
    ]:
        block_id, name = notification_block(client, url)

        assert name == f"{kind}/{BLOCK}"
        [document] = client.read_block_documents(include_secrets=False)
        assert document.id == block_id
        assert "s3cret" not in document.model_dump_json()
        [document] = client.read_block_documents(include_secrets=True)
        assert "s3cret" in str(document.data)

    assert notification_block(client, name) == (block_id, name), "a block can be given by its name"


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("slack-webhook/none", "there is no block 'slack-webhook/none'"),
        ("nowhere://s3cret", "this nowhere:// URL"),
        ("https://[s3cret", "this is not a valid URL"),
    ],
)
def test_a_wrong_target_is_refused_without_showing_it(target: str, reason: str, client: SyncPrefectClient):
    with pytest.raises(SettingsError, match=reason) as refused:
        notification_block(client, target)

    assert "s3cret" not in str(refused.value)
