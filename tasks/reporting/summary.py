"""Write a run's summary as Markdown for the Prefect UI."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from rich.filesize import decimal

from darkroom.tasks.reporting.chart import draw_chart
from darkroom.tasks.reporting.contact_sheet import ContactSheets
from darkroom.tasks.reporting.history import COLUMNS, History, PastRun
from darkroom.tasks.reporting.report import problems_markdown
from darkroom.tasks.reporting.run_report import RunReport, describe_damage
from darkroom.tasks.reporting.skipped import describe_suffix, hints
from darkroom.tasks.reporting.text import code, duration, first_sentence, grouped_list, plain, table

FOLDERS_SHOWN = 20
SUFFIXES_SHOWN = 20
RUNS_LISTED = 10


def summary_markdown(
    report: RunReport,
    sheets: ContactSheets = ContactSheets(),  # noqa: B008 - frozen
    history: History = History(),  # noqa: B008 - frozen
) -> str:
    """Return a run's summary as GitHub-flavoured Markdown; for a failed run it begins with the reason."""
    sections = [
        *_opening(report),
        f"`{code(report.source)}` → `{code(report.destination)}`",
        *_counts(report),
        *_pictures(report, sheets),
        *_failures(report),
        *_last_runs(history),
        *_times(report),
        *_skipped(report),
        *_folders(report),
    ]
    return "\n\n".join(sections) + "\n"


def failures_markdown(report: RunReport) -> str:
    """Return the first failures of a run as GitHub-flavoured Markdown."""
    rows = [(failure.error_code, failure.source_path, failure.error_message) for failure in report.first_failures]
    return grouped_list(f"{report.failed:,} failed", rows, report.failed)


def _opening(report: RunReport) -> Iterator[str]:
    heading, more = first_sentence(report.headline())
    if report.problems:
        heading, more = f"Failed: {heading}" if report.attempted else "Failed", ""
    yield f"# {heading}"
    if more:
        yield more
    yield from problems_markdown(report.problems)


def _counts(report: RunReport) -> Iterator[str]:
    if report.damaged_parts:
        yield plain(describe_damage(report.damaged_parts))
    if report.planned:
        yield table(["", "images"], _count_rows(report))
    if report.attempted:
        yield (
            f"{decimal(report.source_bytes)} read, {decimal(report.output_bytes)} written, "
            f"{report.images_per_second:,.1f} images/s over {duration(report.work_seconds)} of work; "
            f"{duration(report.seconds)} in all."
        )


def _count_rows(report: RunReport) -> list[tuple[str, Any]]:
    deleted = "deleted" if report.published and not report.stopped else "gone from the source, not deleted"
    rows: list[tuple[str, Any]] = [
        ("finished and kept", report.kept if report.interrupted and not report.published else 0),
        ("made", report.ok),
        ("of them moved", report.moved),
        ("failed", report.failed),
        ("unchanged", report.unchanged_now),
        ("of them touched, but the same bytes", report.touched),
        (deleted, report.deleted - report.moved),
        ("adopted from an interrupted run", report.adopted),
        ("**in the manifest**", report.known),
        ("of them failed", report.known_failed),
    ]
    rows += [(f"to do: {reason}", count) for reason, count in report.reasons.items()]
    rows += [(f"skipped: {reason.replace('_', ' ')}", count) for reason, count in sorted(report.skipped.items())]
    always = {"made", "failed", "unchanged", "**in the manifest**"}
    return [(name, f"{count:,}") for name, count in rows if count or name in always]


def _pictures(report: RunReport, sheets: ContactSheets) -> Iterator[str]:
    if sheets.made:
        yield f"## A sample of what was made: {sheets.made.images:,} of {report.ok:,}"
        yield _image("A sample of the outputs", "jpeg", sheets.made.jpeg)
    if sheets.failed:
        yield f"## What failed: {sheets.failed.images:,} of {report.failed:,}"
        yield _image("The failed images, as far as they can be decoded", "jpeg", sheets.failed.jpeg)


def _failures(report: RunReport) -> Iterator[str]:
    if report.error_codes:
        yield "## Failures by code"
        yield table(["code", "images"], [(code, f"{count:,}") for code, count in report.error_codes.items()])


def _last_runs(history: History) -> Iterator[str]:
    if not history.runs:
        return
    yield "## Last runs"
    if len(history.runs) > 1:
        yield _image("Images, failures, duration and throughput of the last runs", "svg+xml", draw_chart(history.runs))
    yield table(COLUMNS, [_run_row(run) for run in history.runs[:RUNS_LISTED]])
    more = f" `darkroom history` lists more than these {RUNS_LISTED}." if len(history.runs) > RUNS_LISTED else ""
    yield f"A run with nothing to do is not among them.{more}"


def _run_row(run: PastRun) -> tuple[str, ...]:
    started, *figures = run.cells()
    return (f"{started}{' (interrupted)' if run.interrupted else ''}", *figures)


def _times(report: RunReport) -> Iterator[str]:
    if report.stages:
        rows = [(times.stage, f"{times.p50:.1f}", f"{times.p95:.1f}", f"{times.max:.1f}") for times in report.stages]
        yield "## Time per image, ms"
        yield table(["stage", "p50", "p95", "max"], rows)
    if report.slowest:
        slow = [
            (f"`{code(image.source_path)}`", f"{image.ms:.0f}", f"{image.megapixels:.1f}") for image in report.slowest
        ]
        yield "## Slowest images"
        yield table(["image", "ms", "megapixels"], slow)


def _skipped(report: RunReport) -> Iterator[str]:
    if report.not_images:
        shown = list(report.not_images.items())[:SUFFIXES_SHOWN]
        rest = sum(report.not_images.values()) - sum(count for _, count in shown)
        rows = [(f"`{code(describe_suffix(suffix))}`", f"{count:,}") for suffix, count in shown]
        yield "## Skipped files that are no images, by suffix"
        yield table(["suffix", "files"], [*rows, ("others", f"{rest:,}")] if rest else rows)
    yield from map(plain, hints(report.skipped, report.not_images))


def _folders(report: RunReport) -> Iterator[str]:
    if report.unreadable_folders:
        shown = ", ".join(f"`{code(folder or '.')}`" for folder in report.unreadable_folders[:FOLDERS_SHOWN])
        yield "## Folders that could not be listed"
        yield f"Nothing below them was touched: {shown}"


def _image(description: str, kind: str, data: bytes) -> str:
    return f"![{description}](data:image/{kind};base64,{base64.b64encode(data).decode()})"
