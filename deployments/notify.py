"""The Prefect block that sends notifications: created from a URL, or an existing one."""

from __future__ import annotations

import logging
from contextlib import suppress
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
"""The name of the block that is created from a URL."""

SLACK_HOSTS = ("hooks.slack.com", "hooks.slack-gov.com")


def notification_block(client: SyncPrefectClient, target: str) -> tuple[UUID, str]:
    """Return the id and the `type/name` of the block for a target; save a URL as a block.

    Args:
        client: a client of the server that will send the notifications.
        target: the URL of a Slack webhook or of any other webhook, an Apprise URL such as `mailtos://…`, or an
            existing notification block as `type/name`. URLs are secrets: they are stored as such and never shown.

    Raises:
        SettingsError: the target is none of these.
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
    # The block of a former URL may have the other type: delete this unused secret.
    for kind in (SlackWebhook, CustomWebhookNotificationBlock):
        former = f"{kind.get_block_type_slug()}/{BLOCK}"
        if former != target and (unused := _block_id(client, former)):
            client.delete_block_document(unused)
    return found, target


def _block_id(client: SyncPrefectClient, target: str) -> UUID | None:
    kind, _, name = target.partition("/")
    with suppress(ObjectNotFound):
        return client.read_block_document_by_name(name, kind, include_secrets=False).id
    return None


def _block_of(url: str) -> SlackWebhook | CustomWebhookNotificationBlock:
    try:
        parts = urlsplit(url)
    except ValueError:
        # From None: the error would show the URL.
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
    # Despite its name, this block accepts every Apprise URL.
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
