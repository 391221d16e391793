"""Where notifications go: a Prefect block, made of a URL or named by the user."""

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
"""The name of the block that is made of a URL."""

SLACK_HOSTS = ("hooks.slack.com", "hooks.slack-gov.com")


def notification_block(client: SyncPrefectClient, target: str) -> tuple[UUID, str]:
    """Return the id of the block that sends to a target, and its name for people; a URL is saved as a block.

    Args:
        client: of the server that will send.
        target: the URL of a Slack webhook or of any other webhook, an Apprise URL such as `mailtos://…`, or an
            existing notification block as `type/name`. A URL is a secret: it is stored as one and never shown.

    Raises:
        SettingsError: it is none of these.
    """
    if "://" in target:
        block = _block_of(target)
        block.save(BLOCK, overwrite=True)
        target = f"{block.get_block_type_slug()}/{BLOCK}"
    found = _existing(client, target)
    _delete_others(client, target)
    return found


def _existing(client: SyncPrefectClient, target: str) -> tuple[UUID, str]:
    kind, _, name = target.partition("/")
    try:
        document = client.read_block_document_by_name(name, kind, include_secrets=False)
    except ObjectNotFound as error:
        raise SettingsError(
            f"{VARIABLE}: there is no block {target!r}. Give a URL, or the type and name of a notification block as "
            "'prefect block ls' shows them, such as slack-webhook/my-block."
        ) from error
    return document.id, target


def _block_of(url: str) -> SlackWebhook | CustomWebhookNotificationBlock:
    try:
        parts = urlsplit(url)
    except ValueError:
        # What is wrong with it would tell what it says.
        raise SettingsError(f"{VARIABLE}: this URL is not one.") from None
    if parts.scheme in {"http", "https"} and parts.hostname not in SLACK_HOSTS:
        return CustomWebhookNotificationBlock(
            name="Darkroom",
            url="{{ url }}",
            secrets=SecretDict({"url": url}),
            # Many chat servers show what is named text.
            json_data={"subject": "{{ subject }}", "body": "{{ body }}", "text": "{{ subject }}\n{{ body }}"},
        )
    _check_apprise(url)
    # Prefect has no block for all that Apprise can send to; this one takes whatever URL Apprise takes.
    return SlackWebhook(url=SecretStr(url))


def _check_apprise(url: str) -> None:
    from apprise import Apprise

    # It would log the URL.
    logging.getLogger("apprise").setLevel(logging.CRITICAL)
    if not Apprise().add(url):
        raise SettingsError(
            f"{VARIABLE}: this {urlsplit(url).scheme}:// URL is not one that Apprise, the library that Prefect sends "
            "notifications with, can send to. See the list of its URLs at https://github.com/caronc/apprise/wiki."
        )


def _delete_others(client: SyncPrefectClient, target: str) -> None:
    """Delete the blocks that former URLs were saved as: they hold secrets of no use."""
    for kind in (SlackWebhook.get_block_type_slug(), CustomWebhookNotificationBlock.get_block_type_slug()):
        if target == f"{kind}/{BLOCK}":
            continue
        try:
            document = client.read_block_document_by_name(BLOCK, kind, include_secrets=False)
        except ObjectNotFound:
            continue
        client.delete_block_document(document.id)
