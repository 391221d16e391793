"""What people look at after a run: its figures, the summary and the failures as Prefect artifacts."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from pydantic import BaseModel

from tasks import sql
from tasks.destination import Workspace
from tasks.discover import Listing
from tasks.plan import Plan
from tasks.recipe import Job

FAILURES_SHOWN = 300
SLOWEST_SHOWN = 10
STAGES = ("read", "decode", "resize", "encode", "write")


class StageTimes(BaseModel):
    """Milliseconds that images spent in one stage."""

    stage: str
    p50: float
    p95: float
    max: float


class FailedImage(BaseModel):
    """An image that failed in a run."""

    source_path: str
    error_code: str
    error_message: str


class SlowImage(BaseModel):
    """An image that took long."""

    source_path: str
    ms: float
    source_bytes: int
    megapixels: float


class RunReport(BaseModel):
    """What a run did."""

    source: str
    destination: str
    run_id: str
    seconds: float = 0.0
    work_seconds: float = 0.0
    ok: int = 0
    failed: int = 0
    touched: int = 0
    unchanged: int = 0
    deleted: int = 0
    adopted: int = 0
    reasons: dict[str, int] = {}
    skipped: dict[str, int] = {}
    unreadable_folders: list[str] = []
    known: int = 0
    known_failed: int = 0
    source_bytes: int = 0
    output_bytes: int = 0
    error_codes: dict[str, int] = {}
    stages: list[StageTimes] = []
    slowest: list[SlowImage] = []
    failures: list[FailedImage] = []
    problems: list[str] = []
    """Why the run counts as failed; empty if it doesn't."""

    def take_plan(self, listing: Listing, plan: Plan) -> None:
        """Fill in what was found and what is to be done."""
        self.unchanged = plan.unchanged
        self.deleted = plan.deleted
        self.known = plan.known
        self.known_failed = plan.known_failed
        self.reasons = plan.reasons
        self.skipped = dict(listing.skipped.counts)
        self.unreadable_folders = listing.skipped.unreadable

    def describe_plan(self, shards: int) -> str:
        """Say in a line what is to be done."""
        todo = ", ".join(f"{count:,} {reason}" for reason, count in self.reasons.items())
        return (
            f"{sum(self.reasons.values()):,} images to process ({todo or 'none'}) in {shards:,} shards; "
            f"{self.unchanged:,} unchanged, {self.deleted:,} deleted"
        )

    def check_failures(self, max_failure_ratio: float) -> None:
        """Note as a problem that more of the attempted images failed than may."""
        if self.attempted and self.failed / self.attempted > max_failure_ratio:
            codes = ", ".join(f"{count:,} × {code}" for code, count in self.error_codes.items())
            self.problems.append(
                f"{self.failed:,} of {self.attempted:,} attempted images failed ({codes}), which is more than "
                f"max_failure_ratio = {max_failure_ratio:g} allows. The manifest is published; its rows with "
                "status 'failed' tell each image's reason."
            )

    @property
    def attempted(self) -> int:
        """Images that the run worked on."""
        return self.ok + self.failed + self.touched

    @property
    def images_per_second(self) -> float:
        """Images worked on, per second of the time in which shards ran."""
        return self.attempted / self.work_seconds if self.work_seconds else 0.0

    def headline(self) -> str:
        """Say in a line what the run did."""
        if self.problems and not self.attempted:
            return "No image could be worked."
        if not self.attempted and not self.deleted:
            return f"Nothing to do: {self.unchanged:,} images unchanged."
        parts = [
            f"{self.ok:,} made",
            f"{self.failed:,} failed",
            f"{self.unchanged + self.touched:,} unchanged",
        ]
        if self.deleted:
            parts.append(f"{self.deleted:,} deleted")
        return ", ".join(parts)


def read_figures(report: RunReport, workspace: Workspace, job: Job) -> None:
    """Fill in what the run's own Parquet file and the manifest tell."""
    destination = workspace.destination
    with sql.connect(workspace.root) as db:
        db.execute(f"CREATE VIEW run AS FROM {sql.parquet(destination.runs / job.run_file)}")
        db.execute(f"CREATE VIEW manifest AS FROM {sql.parquet(destination.manifest)}")
        counts = _rows(
            db,
            "SELECT count(*) FILTER (status = 'ok') AS ok, count(*) FILTER (status = 'failed') AS failed, "
            "count(*) FILTER (status = 'unchanged') AS touched, "
            "coalesce(sum(source_size), 0)::BIGINT AS source_bytes, "
            "coalesce(sum(output_bytes), 0)::BIGINT AS output_bytes FROM run",
        )[0]
        known = _rows(
            db, "SELECT count(*) AS known, count(*) FILTER (status = 'failed') AS known_failed FROM manifest"
        )[0]
        for name, value in (counts | known).items():
            setattr(report, name, value)
        report.error_codes = {
            row["error_code"]: row["images"]
            for row in _rows(
                db,
                "SELECT error_code, count(*) AS images FROM run WHERE status = 'failed' GROUP BY 1 ORDER BY 2 DESC, 1",
            )
        }
        report.failures = [
            FailedImage(**row)
            for row in _rows(
                db,
                "SELECT source_path, error_code, coalesce(error_message, '') AS error_message FROM run "
                f"WHERE status = 'failed' ORDER BY error_code, source_path LIMIT {FAILURES_SHOWN}",
            )
        ]
        report.stages = [_stage_times(db, stage) for stage in STAGES] if report.ok else []
        total = " + ".join(f"{stage}_ms" for stage in STAGES)
        report.slowest = [
            SlowImage(**row)
            for row in _rows(
                db,
                f"SELECT source_path, {total} AS ms, source_size AS source_bytes, "
                "source_width::BIGINT * source_height / 1e6 AS megapixels "
                f"FROM run WHERE status = 'ok' ORDER BY ms DESC LIMIT {SLOWEST_SHOWN}",
            )
        ]


def _stage_times(db: sql.Connection, stage: str) -> StageTimes:
    [row] = _rows(
        db,
        f"SELECT coalesce(quantile_cont({stage}_ms, 0.5), 0) AS p50, "
        f"coalesce(quantile_cont({stage}_ms, 0.95), 0) AS p95, coalesce(max({stage}_ms), 0) AS max FROM run",
    )
    return StageTimes(stage=stage, **row)


def _rows(db: sql.Connection, query: str) -> list[dict[str, Any]]:
    result = db.execute(query)
    names = [column[0] for column in result.description or []]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def artifact_key(destination: str, kind: str) -> str:
    """Return the key under which the Artifacts page keeps all versions of a destination's artifact."""
    name = re.sub(r"[^a-z0-9]+", "-", Path(destination).name.lower()).strip("-") or "dataset"
    return f"{name[:40]}-{hashlib.sha256(destination.encode()).hexdigest()[:6]}-{kind}"


def publish_artifacts(report: RunReport) -> None:
    """Put the summary, and the failures if there are any, on the flow run's page."""
    from prefect.artifacts import create_markdown_artifact, create_table_artifact

    create_markdown_artifact(
        summary_markdown(report),
        key=artifact_key(report.destination, "summary"),
        description=report.headline(),
    )
    if report.failures:
        create_table_artifact(
            [failure.model_dump() for failure in report.failures],
            key=artifact_key(report.destination, "failures"),
            description=f"{len(report.failures):,} of {report.failed:,} images that failed",
        )


def create_progress(destination: str) -> UUID:
    """Put a progress bar on the flow run's page and return its id."""
    from prefect.artifacts import create_progress_artifact

    return cast(UUID, create_progress_artifact(0.0, key=artifact_key(destination, "progress")))


def update_progress(progress: UUID, percent: float, description: str) -> None:
    """Move the progress bar to a percentage."""
    from prefect.artifacts import update_progress_artifact

    update_progress_artifact(progress, percent, description)


def summary_markdown(report: RunReport) -> str:
    """Return the run's summary as GitHub-flavoured Markdown."""
    sections = [
        f"# {report.headline()}",
        *(f"**{_code(problem)}**" for problem in report.problems),
        f"`{_code(report.source)}` → `{_code(report.destination)}`",
        _table(["", "images"], _count_rows(report)),
    ]
    if report.attempted:
        sections.append(
            f"{report.source_bytes / 1e6:,.1f} MB read, {report.output_bytes / 1e6:,.1f} MB written, "
            f"{report.images_per_second:,.1f} images/s over {report.work_seconds:,.1f} s of work; "
            f"{report.seconds:,.1f} s in all."
        )
    if report.error_codes:
        sections += ["## Failures by code", _table(["code", "images"], list(report.error_codes.items()))]
    if report.stages:
        rows = [(times.stage, f"{times.p50:.1f}", f"{times.p95:.1f}", f"{times.max:.1f}") for times in report.stages]
        sections += ["## Time per image, ms", _table(["stage", "p50", "p95", "max"], rows)]
    if report.slowest:
        slow = [
            (f"`{_code(image.source_path)}`", f"{image.ms:.0f}", f"{image.megapixels:.1f}") for image in report.slowest
        ]
        sections += ["## Slowest images", _table(["image", "ms", "megapixels"], slow)]
    if report.unreadable_folders:
        shown = ", ".join(f"`{_code(folder or '.')}`" for folder in report.unreadable_folders[:20])
        sections += ["## Folders that could not be listed", f"Nothing below them was touched: {shown}"]
    return "\n\n".join(sections) + "\n"


def _count_rows(report: RunReport) -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = [
        ("made", report.ok),
        ("failed", report.failed),
        ("unchanged", report.unchanged),
        ("touched, but the same bytes", report.touched),
        ("deleted", report.deleted),
        ("adopted from an interrupted run", report.adopted),
        ("**in the manifest**", report.known),
        ("of them failed", report.known_failed),
    ]
    rows += [(f"to do: {reason}", count) for reason, count in report.reasons.items()]
    rows += [(f"skipped: {reason.replace('_', ' ')}", count) for reason, count in sorted(report.skipped.items())]
    always = {"made", "failed", "unchanged", "**in the manifest**"}
    return [(name, f"{count:,}") for name, count in rows if count or name in always]


def _table(header: list[str], rows: list[tuple[Any, ...]]) -> str:
    lines = [header, ["---"] * len(header), *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _code(text: str) -> str:
    """Return text that can stand between backticks in a table, whatever a file name holds."""
    printable = "".join(character if character.isprintable() else "�" for character in text)
    return printable.replace("`", "ˋ").replace("|", "¦")
