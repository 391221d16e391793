"""The settings of a run, the results of its stages, and the report that is built and published from them."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from prefect import get_run_logger
from prefect.runtime import flow_run

from darkroom.flows.runtime.progress import Progress
from darkroom.tasks.dataset.layout import Destination, open_destination
from darkroom.tasks.discover import Listing
from darkroom.tasks.errors import SettingsError
from darkroom.tasks.plan import Plan
from darkroom.tasks.recover import Recovered
from darkroom.tasks.reporting.artifacts import publish_markdown, publish_table
from darkroom.tasks.reporting.contact_sheet import ContactSheets, make_contact_sheets
from darkroom.tasks.reporting.figures import Figures
from darkroom.tasks.reporting.history import History, read_history
from darkroom.tasks.reporting.run_report import RunReport
from darkroom.tasks.reporting.summary import summary_markdown
from darkroom.tasks.resize import ShardResult
from darkroom.tasks.settings import Compute, Job, Recipe, Rules
from darkroom.tasks.storage import locations


@dataclass(slots=True)
class Run:
    """A run's settings, and the results of its stages so far; a run that fails is reported as far as it got."""

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
    plan: Plan | None = None
    progress: Progress[ShardResult] | None = None
    stopped: bool = False
    figures: Figures | None = None
    seconds: float | None = None
    """From its start until it published, as the history has it."""

    problems: list[str] = field(default_factory=list)

    @property
    def work_seconds(self) -> float:
        """Seconds in which shards ran."""
        return self.progress.seconds if self.progress else 0.0

    def build_report(self, problem: str = "", pictures: tuple[str, ...] = ()) -> RunReport:
        """Return the run's report.

        Args:
            problem: why the stages ended early, if they did.
            pictures: files with a preview's contact sheets.
        """
        failures = self.progress.failures if self.progress else []
        return RunReport(
            source=self.source,
            destination=self.destination,
            run_id=self.run_id,
            preview=self.rules.limit is not None,
            pictures=pictures,
            seconds=time.monotonic() - self.started if self.seconds is None else self.seconds,
            work_seconds=self.work_seconds,
            adopted=self.recovered.images,
            damaged_parts=self.recovered.damaged_parts,
            planned=self.plan is not None,
            published=self.figures is not None,
            stopped=self.stopped,
            problems=(*failures, *self.problems, *filter(None, [problem])),
            **(_planned(self.listing, self.plan) | dict(self.figures or {})),
        )


def absolute(location: str) -> str:
    """Return a location as an absolute path, or as it is if it can't be one, which the stages report."""
    try:
        return locations.absolute(location, "")
    except SettingsError:
        return location


def _planned(listing: Listing | None, plan: Plan | None) -> dict[str, Any]:
    """Return what a report has of listing and plan; `known` and `known_failed` change once the run publishes."""
    if not listing or not plan:
        return {}
    return {
        "unchanged": plan.unchanged,
        "deleted": plan.deleted,
        "known": plan.known,
        "known_failed": plan.known_failed,
        "reasons": plan.reasons,
        "skipped": dict(listing.skipped.counts),
        "not_images": listing.not_images,
        "unreadable_folders": tuple(listing.skipped.unreadable),
    }


def report_run(run: Run, problem: str) -> RunReport:
    """Build a run's report and publish it on the flow run's page; a failure to publish it changes nothing else.

    Args:
        run: the run.
        problem: why the stages ended early, if they did.
    """
    destination = open_destination(run.destination)
    sheets, history = ContactSheets(), History()
    pictures: tuple[str, ...] = ()
    try:
        if run.figures and run.job:
            sheets = make_contact_sheets(destination, run.job)
            pictures = _write_contact_sheets(destination, sheets) if run.rules.limit else ()
    except Exception:  # noqa: BLE001 - a picture is not worth a run
        get_run_logger().warning("The contact sheet could not be made.", exc_info=True)
    report = run.build_report(problem, pictures)
    try:
        with suppress(SettingsError):  # the run may have failed for the same reason
            history = read_history(destination)
        publish_markdown(report.destination, "summary", summary_markdown(report, sheets, history), report.title())
        if report.attempted:  # an empty table, too: it replaces that of the run before under the same key
            shown = f"{len(report.first_failures):,} of {report.failed:,} images that failed"
            publish_table(report.destination, "failures", report.first_failures, shown)
    except Exception:  # noqa: BLE001 - the manifest is published, whether or not there is a server to report to
        get_run_logger().warning("The summary could not be stored.", exc_info=True)
    return report


def _write_contact_sheets(destination: Destination, sheets: ContactSheets) -> tuple[str, ...]:
    """Write a preview's contact sheets as JPEG files into its destination, and return where they are."""
    pictures = {"contact-sheet.jpg": sheets.made, "failures.jpg": sheets.failed}
    written = [name for name, sheet in pictures.items() if sheet and destination.store.put(name, sheet.jpeg)]
    return tuple(destination.store.where(name) for name in written)
