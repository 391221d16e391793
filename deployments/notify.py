"""The Prefect block that sends notifications: made from a URL, or chosen by the user."""

from __future__ import annotations

import logging
from urllib.parse import urlsplit
from uuid import UUID

from prefect.blocks.notifications import CustomWebhookNotificationBlock, SlackWebhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import ObjectNotFound
from prefect.types import SecretDict
from pydantic import SecretStr

from darkroom.tasks.errors import SettingsError

VARIABLE = "DARKROOM_NOTIFY"
BLOCK = "darkroom-notify"
"""The name of the block that is made from a URL."""

SLACK_HOSTS = ("hooks.slack.com", "hooks.slack-gov.com")


def notification_block(client: SyncPrefectClient, target: str) -> tuple[UUID, str]:
    """Return the id of the block that sends to a target, and its `type/name`; save a URL as a block first.

    Args:
        client: a client of the server that will send the notifications.
        target: the URL of a Slack webhook or of any other webhook, an Apprise URL such as `mailtos://…`, or an
            existing notification block as `type/name`. A URL is a secret: it is stored as one and never shown.

    Raises:
        SettingsError: it is none of these.
    """
    if "://" in target:
        block = _block_of(target)
        block.save(BLOCK, overwrite=True)
        target = f"{block.get_block_type_slug()}/{BLOCK}"
    found = _block_id(client, target)
    if not found:
        raise SettingsError(
            f"{VARIABLE}: there is no block {target!r}. Give a URL, or the type and name of a notification block as "
            "'prefect block ls' shows them, such as slack-webhook/my-block."
        )
    # A URL that was set before may be in a block of the other type: an unused secret.
    for kind in (SlackWebhook, CustomWebhookNotificationBlock):
        former = f"{kind.get_block_type_slug()}/{BLOCK}"
        if former != target and (unused := _block_id(client, former)):
            client.delete_block_document(unused)
    return found, target


def _block_id(client: SyncPrefectClient, target: str) -> UUID | None:
    kind, _, name = target.partition("/")
    try:
        return client.read_block_document_by_name(name, kind, include_secrets=False).id
    except ObjectNotFound:
        return None


def _block_of(url: str) -> SlackWebhook | CustomWebhookNotificationBlock:
    try:
        parts = urlsplit(url)
    except ValueError:
        # The error would show the URL.
        raise SettingsError(f"{VARIABLE}: this is not a valid URL.") from None
    if parts.scheme in {"http", "https"} and parts.hostname not in SLACK_HOSTS:
        return CustomWebhookNotificationBlock(
            name="Darkroom",
            url="{{ url }}",
            secrets=SecretDict({"url": url}),
            # Many chat servers display the field `text`.
            json_data={"subject": "{{ subject }}", "body": "{{ body }}", "text": "{{ subject }}\n{{ body }}"},
        )
    _check_apprise(url)
    # Prefect has no block for most services of Apprise, but this one accepts every Apprise URL.
    return SlackWebhook(url=SecretStr(url))


def _check_apprise(url: str) -> None:
    from apprise import Apprise

    # Apprise would log the URL.
    logging.getLogger("apprise").setLevel(logging.CRITICAL)
    if not Apprise().add(url):
        raise SettingsError(
            f"{VARIABLE}: this {urlsplit(url).scheme}:// URL is not one that Apprise, the library that Prefect sends "
            "notifications with, can send to. See the list of its URLs at https://github.com/caronc/apprise/wiki."
        )
