"""The settings of a run, the results of its stages, and the report on them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from prefect import get_run_logger
from prefect.runtime import flow_run

from darkroom.flows.runtime.progress import Progress
from darkroom.tasks.dataset.journal import count_journalled
from darkroom.tasks.dataset.layout import Destination, Workspace, open_destination
from darkroom.tasks.discover import Listing
from darkroom.tasks.errors import SettingsError
from darkroom.tasks.plan import Plan
from darkroom.tasks.recover import Recovered
from darkroom.tasks.reporting.artifacts import publish_markdown
from darkroom.tasks.reporting.contact_sheet import ContactSheets, make_contact_sheets
from darkroom.tasks.reporting.figures import Figures
from darkroom.tasks.reporting.history import History, read_history
from darkroom.tasks.reporting.run_report import RunReport
from darkroom.tasks.reporting.summary import failures_markdown, summary_markdown
from darkroom.tasks.reporting.text import count_codes
from darkroom.tasks.resize import ShardResult
from darkroom.tasks.settings import Compute, Job, Recipe, Rules
from darkroom.tasks.storage import locations


@dataclass(slots=True)
class Run:
    """A run's settings, and the results of its stages so far, from which a failed run is reported, too."""

    source: str
    destination: str
    recipe: Recipe
    rules: Rules
    compute: Compute
    run_id: str = field(default_factory=lambda: str(flow_run.id or uuid4()))
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    started: float = field(default_factory=time.monotonic)
    recovered: Recovered = field(default_factory=Recovered)
    job: Job | None = None
    listing: Listing | None = None
    workspace: Workspace | None = None
    plan: Plan | None = None
    progress: Progress[ShardResult] | None = None
    stopped: bool = False
    figures: Figures | None = None
    seconds: float | None = None
    """Seconds from the run's start until it published, as in its history."""

    problems: list[str] = field(default_factory=list)

    @property
    def work_seconds(self) -> float:
        """Seconds in which shards ran."""
        return self.progress.seconds if self.progress else 0.0

    def build_report(self, problem: str = "", interrupted: bool = False) -> RunReport:
        """Return the run's report.

        Args:
            problem: why the stages ended early, if they did.
            interrupted: whether a signal or a cancellation ended the run.
        """
        failures = self.progress.failures if self.progress else []
        return RunReport(
            source=self.source,
            destination=self.destination,
            run_id=self.run_id,
            preview=self.rules.limit is not None,
            interrupted=interrupted,
            to_do=self.plan.images if self.plan else 0,
            kept=count_journalled(self.workspace) if self.workspace and interrupted else 0,
            seconds=time.monotonic() - self.started if self.seconds is None else self.seconds,
            work_seconds=self.work_seconds,
            damaged_parts=self.recovered.damaged_parts,
            planned=self.plan is not None,
            published=self.figures is not None,
            stopped=self.stopped,
            problems=(*failures, *self.problems, *filter(None, [problem])),
            **(_planned(self.listing, self.plan) | dict(self.figures or {})),
        )


def absolute(location: str) -> str:
    """Return a location as an absolute path; unchanged if that fails, which the stages report."""
    try:
        return locations.absolute(location, "")
    except SettingsError:
        return location


def _planned(listing: Listing | None, plan: Plan | None) -> dict[str, Any]:
    """Return the report's fields from listing and plan; publishing changes `known` and `known_failed`."""
    if not listing or not plan:
        return {}
    return {
        "adopted": plan.adopted,
        "unchanged": plan.unchanged,
        "deleted": plan.deleted,
        "known": plan.known,
        "known_failed": plan.known_failed,
        "reasons": plan.reasons,
        "skipped": dict(listing.skipped.counts),
        "not_images": listing.not_images,
        "unreadable_folders": tuple(listing.skipped.unreadable),
    }


def publish_report(run: Run, report: RunReport) -> RunReport:
    """Publish a run's report on the flow run's page, or log why not; return it, with the paths of any pictures."""
    sheets, history = ContactSheets(), History()
    try:
        if run.figures and run.job and not report.interrupted:  # an interrupted run must end soon
            destination = open_destination(run.destination)
            sheets = make_contact_sheets(destination, run.job)
            if run.rules.limit:
                report = report.model_copy(update={"pictures": _write_contact_sheets(destination, sheets)})
    except Exception:  # noqa: BLE001 - a missing picture fails no run
        get_run_logger().warning("The contact sheet could not be made.", exc_info=True)
    with summary_stored(report.title()):
        with suppress(SettingsError):  # which the run has probably reported itself
            history = read_history(open_destination(run.destination))
        publish_markdown(report.destination, "summary", summary_markdown(report, sheets, history), report.title())
        if report.first_failures:
            codes = count_codes(report.error_codes)
            publish_markdown(
                report.destination, "failures", failures_markdown(report), f"{report.failed:,} failed: {codes}"
            )
    return report


@contextmanager
def summary_stored(title: str) -> Iterator[None]:
    """Log the title of the summary that the block stores, or why that failed, as without a Prefect server."""
    try:
        yield
        get_run_logger().info(f"Stored the summary: {title}")
    except Exception:  # noqa: BLE001 - the run's work is complete without its summary
        get_run_logger().warning("The summary could not be stored.", exc_info=True)


def _write_contact_sheets(destination: Destination, sheets: ContactSheets) -> tuple[str, ...]:
    """Write a preview's contact sheets to its destination as JPEG files; return their locations."""
    pictures = {"contact-sheet.jpg": sheets.made, "failures.jpg": sheets.failed}
    written = [name for name, sheet in pictures.items() if sheet and destination.store.put(name, sheet.jpeg)]
    return tuple(destination.store.where(name) for name in written)
