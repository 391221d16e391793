"""Read the keys of an AWS profile, which the object-store client does not do itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from configparser import ConfigParser, Error
from pathlib import Path

_KEYS = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
    "region": "region",
    "endpoint_url": "endpoint",
}
"""Settings of a profile, with the client's names for them."""

_IN_ENVIRONMENT = {
    "access_key_id": ("AWS_ACCESS_KEY_ID",),
    "secret_access_key": ("AWS_SECRET_ACCESS_KEY",),
    "session_token": ("AWS_SESSION_TOKEN", "AWS_TOKEN", "AWS_ACCESS_KEY_ID"),
    "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "endpoint": ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"),
}


def profile_config(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the client's settings from the profile `AWS_PROFILE`, or `default`, that the environment does not set.

    The files are `~/.aws/credentials` and `~/.aws/config`, or `AWS_SHARED_CREDENTIALS_FILE` and `AWS_CONFIG_FILE`.
    Missing or unreadable files leave the keys to the instance's role.
    """
    profile = variables.get("AWS_PROFILE", "default")
    credentials = variables.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")
    config = variables.get("AWS_CONFIG_FILE", "~/.aws/config")
    found = _section(config, profile if profile == "default" else f"profile {profile}") | _section(credentials, profile)
    named = {_KEYS[key]: value for key, value in found.items() if key in _KEYS}
    return {name: value for name, value in named.items() if variables.keys().isdisjoint(_IN_ENVIRONMENT[name])}


def _section(file: str, name: str) -> dict[str, str]:
    parser = ConfigParser(interpolation=None, default_section="")
    try:
        parser.read_string(Path(os.path.expanduser(file)).read_text())
    except (OSError, Error, UnicodeDecodeError):
        return {}
    return dict(parser[name]) if name in parser else {}
