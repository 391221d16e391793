"""Print the results of commands: a few labelled lines, or a table."""

from __future__ import annotations

import json
import shlex
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from darkroom.flows.cli.options import name_options
from darkroom.tasks.errors import DarkroomError
from darkroom.tasks.reporting.text import count_codes, duration, printable
from darkroom.tasks.wording import counted

if TYPE_CHECKING:
    from darkroom.tasks.dataset.layout import Destination
    from darkroom.tasks.dataset.lease import Lease
    from darkroom.tasks.rebuild import Rebuilt
    from darkroom.tasks.reporting.figures import FailedImage
    from darkroom.tasks.reporting.history import History
    from darkroom.tasks.reporting.run_report import RunReport
    from darkroom.tasks.reporting.status import Status, Unfinished
    from darkroom.tasks.reporting.verify_report import VerifyReport
    from darkroom.tasks.settings import Recipe

ROWS_PRINTED = 10
"""Failures or findings that a run or verification lists."""

TABLE_WIDTH = 80

RUN_ID_SHOWN = 8
"""Characters of a run id that suffice to find its file in `runs/`."""


def _line(label: str, text: str, width: int = 10) -> None:
    """Print a labelled line; Rich's tables would wrap long paths."""
    print(f"{label:<{width}}{text}")


def _print_codes(codes: Mapping[str, int]) -> None:
    """Print counts by error code, on several lines if need be, but each count beside its code."""
    counts = count_codes(codes).replace(" × ", "\0×\0")
    for number, line in enumerate(textwrap.wrap(counts, TABLE_WIDTH - 10)):
        _line("" if number else "failures", line.replace("\0", " "))


def print_report(report: RunReport, page: str) -> None:
    """Print what a run did, and where its results are."""
    rate = f" at {report.images_per_second:,.1f} images/s" if report.attempted else ""
    print(f"{report.headline()}{rate} ({duration(report.seconds)})")
    if report.preview:
        _print_preview(report)
        return
    if report.adopted:
        _line("adopted", f"{counted(report.adopted, 'image')} that an interrupted run had finished")
    if report.damaged_parts:
        from darkroom.tasks.reporting.run_report import describe_damage

        _line("damaged", describe_damage(report.damaged_parts))
    _print_codes(report.error_codes)
    if report.skipped:
        from darkroom.tasks.reporting.skipped import describe_skipped, hints

        _line("skipped", describe_skipped(report.skipped, report.not_images))
        for hint in hints(report.skipped, report.not_images):
            _line("hint", name_options(hint))
    for folder in report.unreadable_folders[:ROWS_PRINTED]:
        _line("unreadable", printable(folder) or ".", width=11)
    if more := len(report.unreadable_folders[ROWS_PRINTED:]):
        _line("and", f"{more:,} more that can't be read", width=11)
    _line("manifest", f"{report.manifest} ({counted(report.known, 'row')}, {report.known_failed:,} failed)")
    _line("outputs", f"{report.destination}/images/")
    _line("page", page)
    _print_failures(report)


def _print_failures(report: RunReport) -> None:
    """Print the first images that failed, and the command that lists all failed images of the manifest."""
    shown = report.first_failures[:ROWS_PRINTED]
    print_failed(shown)
    if report.adopted and not report.interrupted:
        print_failed(_further_failures(report, shown))
    if report.known_failed:
        command = f"darkroom failures {shlex.quote(report.destination)}"
        _line("list", f"{command} (all {report.known_failed:,})" if report.known_failed > 1 else command)


def _further_failures(report: RunReport, shown: Sequence[FailedImage]) -> list[FailedImage]:
    """Return failed images of the manifest beside those shown, so that there are up to `ROWS_PRINTED` in all.

    A run that was interrupted has not printed what failed: the run that adopts it does.
    """
    from darkroom.tasks.dataset.layout import open_destination
    from darkroom.tasks.reporting.failed_images import read_failed

    known = {image.source_path for image in shown}
    with suppress(DarkroomError):  # the run itself is over, and has its outcome
        others = (
            image for image in read_failed(open_destination(report.destination)) if image.source_path not in known
        )
        return list(islice(others, ROWS_PRINTED - len(shown)))
    return []


def print_failed(images: Iterable[FailedImage]) -> None:
    """Print a line for each failed image: its path, the error code and the message."""
    for image in images:
        print(describe_failed(image))


def describe_failed(image: FailedImage) -> str:
    """Return a line about a failed image."""
    return printable(f"{image.source_path}: {image.error_code}: {name_options(image.error_message)}")


def as_json(image: FailedImage) -> str:
    """Return a failed image as JSON; escape characters if the output's encoding may lack them."""
    is_utf8 = sys.stdout.encoding.lower().replace("-", "") == "utf8"
    return json.dumps(image.model_dump(mode="json"), ensure_ascii=not is_utf8)


def _print_preview(report: RunReport) -> None:
    _print_failures(report)
    for picture in report.pictures:
        _line("picture", picture)
    _line("outputs", f"{report.destination}/images/")
    print("Nothing was published; run without --limit.")


def print_verification(report: VerifyReport, page: str) -> None:
    """Print what a verification found, and where its results are."""
    line = partial(_line, width=12)

    rate = f", {decimal(int(report.bytes / report.work_seconds))}/s" if report.work_seconds else ""
    print(f"{report.headline()[:-1]}{rate} ({duration(report.seconds)})")
    for finding in report.findings[:ROWS_PRINTED]:
        name = finding.file_name or finding.source_path or ""
        line(finding.kind.replace("_", " "), printable(f"{name}: {finding.detail}"))
    if more := report.found - min(len(report.findings), ROWS_PRINTED):
        line("and", f"{more:,} more")
    if report.findings_file:
        line("findings", f"{report.destination}/{report.findings_file} ({counted(report.found, 'row')})")
    if report.quarantine:
        line("quarantine", f"{report.destination}/{report.quarantine}/ ({counted(report.moved, 'file')})")
    line("page", page)


def print_status(status: Status) -> None:
    """Print what a destination holds."""
    if status.info is None:
        _line("manifest", "none")
    else:
        counts = ", ".join(f"{count:,} {name}" for name, count in status.statuses.items())
        size = f"{decimal(status.output_bytes)} of outputs"
        _line("images", f"{status.info.rows:,} ({counts or 'none'}), {size}")
    _print_codes(status.error_codes)
    if run := status.last_run:
        ended = f"{run.ended:%Y-%m-%d %H:%M:%S %Z}"
        _line(
            "last run", f"{ended}, {counted(run.images, 'image')}, {run.failed:,} failed ({run.run_id[:RUN_ID_SHOWN]})"
        )
    if status.damaged_run:
        _line("last run", status.damaged_run)
    if status.info:
        _print_recipe(status.info.recipe)
    if status.lease is None:
        _line("lease", "free")
    else:
        _print_lease(status.lease)
    print_unfinished(status.unfinished)


def _print_lease(lease: Lease) -> None:
    """Print a lease on two lines: with the whole run id, which Prefect's commands take, one has 118 columns."""
    _line("lease", f"{'held' if lease.is_live() else 'left behind'} by run {lease.run_id}")
    _line("", f"on {lease.host} (process {lease.pid}) since {lease.since_utc()}")


def _print_recipe(recipe: Recipe) -> None:
    """Print a recipe, and the options of `darkroom run` that give it."""
    _line("recipe", f"{recipe.width} × {recipe.height} pixels, {recipe.fit}, {recipe.color}, {recipe.format}")
    if changed := recipe.model_dump(exclude_defaults=True):
        settings = " ".join(f"`{name}={shlex.quote(str(value))}`" for name, value in changed.items())
        _line("options", name_options(settings))


def print_unfinished(unfinished: Unfinished) -> None:
    """Print the number of interrupted runs that are not adopted yet, if any, and of the images that they finished."""
    if not unfinished.runs:
        return
    runs = counted(unfinished.runs, "interrupted run")
    if unfinished.images:
        are = "is" if unfinished.images == 1 else "are"
        _line("resume", f"{counted(unfinished.images, 'image')} of {runs} {are} safe: the next run goes on from there")
    else:
        _line("resume", f"{runs}, without a finished image")


def print_rebuilt(place: Destination, rebuilt: Rebuilt | None) -> None:
    """Print the result of `rebuild_manifest`."""
    if rebuilt is None:
        print(f"{place.location}/manifest.parquet is whole: nothing was changed.")
        return
    _line("manifest", f"{place.location}/manifest.parquet ({counted(rebuilt.rows, 'row')})")
    if rebuilt.kept:
        _line("kept", f"the damaged one is {rebuilt.kept}")
    if rebuilt.damaged_runs:
        _line("damaged", f"{', '.join(rebuilt.damaged_runs)} of runs/ could not be used")
    if rebuilt.left_out:
        _line(
            "left out",
            f"{counted(rebuilt.left_out, 'image')} deleted since, or without their outputs",
        )
    print("Now start 'darkroom run': it makes the images that are left out again, if the source still has them.")


def print_history(history: History) -> None:
    """Print a table of the last runs, the newest first, at most 80 columns wide."""
    from darkroom.tasks.reporting.history import SHORT_COLUMNS

    if not (history.runs or history.unreadable or history.denied):
        print("No run has published an image yet.")
    elif history.runs:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
        for column in SHORT_COLUMNS:
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("run", no_wrap=True)
        for run in history.runs:
            table.add_row(*run.short_cells(), run.run_id[:RUN_ID_SHOWN] + ("*" if run.interrupted else ""))
        Console(width=TABLE_WIDTH, highlight=False, markup=False).print(table)
        if any(run.interrupted for run in history.runs):
            print("* interrupted; a later run adopted what it had finished")
    if history.unreadable:
        print(f"left out  {', '.join(history.unreadable)}: damaged, or of another version", file=sys.stderr)
    if history.denied:
        print(f"left out  {', '.join(history.denied)}: this user may not read them", file=sys.stderr)
