"""Create artifacts of a flow run in the Prefect UI, with the same keys in each run of a destination."""

from __future__ import annotations

import hashlib
import re
from typing import cast
from uuid import UUID

MAX_NAME = 60
"""Upper limit on the characters of a destination's path in an artifact's key."""


def artifact_key(destination: str, kind: str) -> str:
    """Return the key of a destination's artifact, under which the UI lists the artifacts of all its runs.

    It is the destination's path with `-` for all characters that a key may not have. A path that is long, or has other
    characters than lower-case letters, digits and `/._-`, also gets a hash.
    """
    name = re.sub(r"[^a-z0-9]+", "-", destination.lower()).strip("-")
    if len(name) > MAX_NAME or not re.fullmatch(r"(s3:/|gs:/|az:/)?[a-z0-9/._-]+", destination):
        digest = hashlib.sha256(destination.encode(errors="replace")).hexdigest()[:6]
        name = f"{name[-MAX_NAME:].strip('-')}-{digest}".strip("-")
    return f"{name or 'root'}-{kind}"


def publish_markdown(destination: str, kind: str, markdown: str, description: str) -> None:
    """Add a Markdown document to the flow run's page."""
    from prefect.artifacts import create_markdown_artifact

    create_markdown_artifact(markdown, key=artifact_key(destination, kind), description=description)


def create_progress(destination: str, kind: str = "progress") -> UUID:
    """Add a progress bar to the flow run's page and return its id."""
    from prefect.artifacts import create_progress_artifact

    return cast(UUID, create_progress_artifact(0.0, key=artifact_key(destination, kind)))


def update_progress(progress: UUID, percent: float, description: str) -> None:
    """Move the progress bar to a percentage."""
    from prefect.artifacts import update_progress_artifact

    update_progress_artifact(progress, percent, description)
