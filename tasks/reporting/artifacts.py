"""What a run leaves in the Prefect UI, under keys that stay the same from night to night."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import cast
from uuid import UUID

from darkroom.tasks.reporting.contact_sheet import ContactSheets
from darkroom.tasks.reporting.history import History
from darkroom.tasks.reporting.run_report import RunReport
from darkroom.tasks.reporting.summary import summary_markdown


def artifact_key(destination: str, kind: str) -> str:
    """Return the key under which the Artifacts page keeps all versions of a destination's artifact."""
    name = re.sub(r"[^a-z0-9]+", "-", Path(destination).name.lower()).strip("-") or "dataset"
    return f"{name[:40]}-{hashlib.sha256(destination.encode(errors='replace')).hexdigest()[:6]}-{kind}"


def publish_artifacts(report: RunReport, sheets: ContactSheets, history: History) -> None:
    """Put the summary, and the failures if there are any, on the flow run's page."""
    from prefect.artifacts import create_markdown_artifact, create_table_artifact

    create_markdown_artifact(
        summary_markdown(report, sheets, history),
        key=artifact_key(report.destination, "summary"),
        description=report.title(),
    )
    if report.attempted:  # none is worth telling, too: under this key the last night's are looked for
        create_table_artifact(
            [failure.model_dump() for failure in report.failures],
            key=artifact_key(report.destination, "failures"),
            description=f"{len(report.failures):,} of {report.failed:,} images that failed",
        )


def create_progress(destination: str, kind: str = "progress") -> UUID:
    """Put a progress bar on the flow run's page and return its id."""
    from prefect.artifacts import create_progress_artifact

    return cast(UUID, create_progress_artifact(0.0, key=artifact_key(destination, kind)))


def update_progress(progress: UUID, percent: float, description: str) -> None:
    """Move the progress bar to a percentage."""
    from prefect.artifacts import update_progress_artifact

    update_progress_artifact(progress, percent, description)
