"""The Prefect server of a stack that runs on this machine, for runs whose environment names none."""

from __future__ import annotations

import json
import os
import urllib.request
from importlib.metadata import version

DEFAULT_PORT = "4200"

ANSWER_SECONDS = 1.0


def find_server() -> str | None:
    """Return the API address of the Prefect server where `prefect server start` and `make stack` serve, or None.

    It must be of this version, and let this user in.
    """
    url = f"http://127.0.0.1:{os.environ.get('PREFECT_SERVER_API_PORT', DEFAULT_PORT)}/api"
    try:
        with urllib.request.urlopen(f"{url}/admin/version", timeout=ANSWER_SECONDS) as answer:  # noqa: S310 - http
            found = json.load(answer)
    except (OSError, ValueError):  # nothing listens there, or something other than Prefect
        return None
    return url if found == version("prefect") else None
