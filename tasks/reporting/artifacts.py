"""Artifacts of a flow run in the Prefect UI, under keys that stay the same from run to run."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import cast
from uuid import UUID

from pydantic import BaseModel


def artifact_key(destination: str, kind: str) -> str:
    """Return the key under which the Artifacts page lists all versions of a destination's artifact."""
    name = re.sub(r"[^a-z0-9]+", "-", Path(destination).name.lower()).strip("-") or "dataset"
    return f"{name[:40]}-{hashlib.sha256(destination.encode(errors='replace')).hexdigest()[:6]}-{kind}"


def publish_markdown(destination: str, kind: str, markdown: str, description: str) -> None:
    """Add a Markdown document to the flow run's page."""
    from prefect.artifacts import create_markdown_artifact

    create_markdown_artifact(markdown, key=artifact_key(destination, kind), description=description)


def publish_table(destination: str, kind: str, rows: Sequence[BaseModel], description: str) -> None:
    """Add a table to the flow run's page."""
    from prefect.artifacts import create_table_artifact

    create_table_artifact(
        [row.model_dump() for row in rows], key=artifact_key(destination, kind), description=description
    )


def create_progress(destination: str, kind: str = "progress") -> UUID:
    """Add a progress bar to the flow run's page and return its id."""
    from prefect.artifacts import create_progress_artifact

    return cast(UUID, create_progress_artifact(0.0, key=artifact_key(destination, kind)))


def update_progress(progress: UUID, percent: float, description: str) -> None:
    """Move the progress bar to a percentage."""
    from prefect.artifacts import update_progress_artifact

    update_progress_artifact(progress, percent, description)
