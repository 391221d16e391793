"""Find the Prefect server that `make stack` runs on this machine, for runs without a configured one."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Callable
from importlib.metadata import version

DEFAULT_PORT = "4200"

ANSWER_SECONDS = 1.0


def find_server(note: Callable[[str], None] = lambda _: None) -> str | None:
    """Return the API address of the server of `prefect server start` or `make stack` on this machine.

    None if there is none, if it refuses this user, or if it has another version, which `note` is called with.
    """
    url = f"http://127.0.0.1:{os.environ.get('PREFECT_SERVER_API_PORT', DEFAULT_PORT)}/api"
    try:
        with urllib.request.urlopen(f"{url}/admin/version", timeout=ANSWER_SECONDS) as answer:  # noqa: S310 - http
            found = json.load(answer)
    except (OSError, ValueError):  # nothing listens there, or something other than Prefect
        return None
    if found == version("prefect"):
        return url
    if isinstance(found, str):
        note(f"The Prefect server at {url} is not used: it has version {found}, not {version('prefect')}.")
    return None
