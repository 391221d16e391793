"""What the command line shows: progress while a run goes on, and a few lines at its end."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from darkroom.tasks.errors import DarkroomError, SettingsError

if TYPE_CHECKING:
    from darkroom.flows.runtime.progress import Progress, Watcher
    from darkroom.tasks.dataset.layout import Destination
    from darkroom.tasks.rebuild import Rebuilt
    from darkroom.tasks.reporting.history import History
    from darkroom.tasks.reporting.run_report import RunReport
    from darkroom.tasks.reporting.status import Status
    from darkroom.tasks.reporting.verify_report import VerifyReport

EXIT_FAILED = 1
EXIT_USAGE = 2

FIRST_LINE_SECONDS = 2.0
LINE_SECONDS = 10.0
"""Where there is no terminal, progress is a line after so long, and then this often."""

BAR_WIDTH = 12

FINDINGS_PRINTED = 10


def error(message: str) -> None:
    """Print what went wrong, on standard error."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"[red]darkroom:[/red] {escape(message)}")


def last_word(message: str) -> None:
    """Print a line on standard error, whatever else is being printed just now, and leave the terminal as it was."""
    shown_cursor = "\r\x1b[2K\x1b[?25h" if sys.stderr.isatty() else ""
    with suppress(OSError):
        os.write(sys.stderr.fileno(), f"{shown_cursor}{message}\n".encode())


@contextmanager
def problems_told() -> Iterator[None]:
    """Exit with a line about what went wrong instead of a traceback, if it is one of the problems that are foreseen."""
    try:
        yield
    except SettingsError as problem:
        error(str(problem))
        sys.exit(EXIT_USAGE)
    except DarkroomError as problem:
        error(str(problem))
        sys.exit(EXIT_FAILED)


@contextmanager
def shown_progress() -> Iterator[None]:
    """Show how far the run is that is started within."""
    from darkroom.flows.runtime.progress import watcher

    if sys.stderr.isatty():
        with _bar() as bar:
            token = watcher.set(_bar_watcher(bar))
            try:
                yield
            finally:
                watcher.reset(token)
    else:
        token = watcher.set(_LinePrinter())
        try:
            yield
        finally:
            watcher.reset(token)


def _bar() -> Bar:
    return Bar(
        SpinnerColumn(),
        BarColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def _bar_watcher(bar: Bar) -> Watcher:
    task = bar.add_task("starting", total=None)

    def watch(progress: Progress) -> None:
        bar.update(task, total=progress.images, completed=progress.done, description=progress.describe())

    return watch


class _LinePrinter:
    """Prints a line of progress now and then."""

    def __init__(self) -> None:
        self._next_at = FIRST_LINE_SECONDS

    def __call__(self, progress: Progress) -> None:
        if progress.seconds >= self._next_at:
            self._next_at = progress.seconds + LINE_SECONDS
            print(progress.describe(), file=sys.stderr, flush=True)


def print_report(report: RunReport, history: str) -> None:
    """Print in a few lines what a run did, and where to look."""
    rate = f" at {report.images_per_second:,.1f} images/s" if report.attempted else ""
    print(f"{report.headline()}{rate} ({report.seconds:.1f} s)")
    if report.adopted:
        print(f"adopted   {report.adopted:,} images that an interrupted run had finished")
    if report.damaged_parts:
        print(f"damaged   {report.describe_damage()}")
    if report.error_codes:
        print(f"failures  {', '.join(f'{count:,} × {code}' for code, count in report.error_codes.items())}")
    if report.skipped:
        skipped = (f"{count:,} {reason.replace('_', ' ')}" for reason, count in sorted(report.skipped.items()))
        print(f"skipped   {', '.join(skipped)}")
    print(f"manifest  {report.destination}/manifest.parquet ({report.known:,} rows, {report.known_failed:,} failed)")
    print(f"outputs   {report.destination}/images/")
    print(f"history   {history}")


def print_verification(report: VerifyReport, history: str) -> None:
    """Print in a few lines what a verification found, and where to look."""
    from darkroom.tasks.reporting.text import printable

    rate = f", {report.bytes / report.work_seconds / 1e6:,.1f} MB/s" if report.work_seconds else ""
    print(f"{report.headline()[:-1]}{rate} ({report.seconds:.1f} s)")
    for finding in report.findings[:FINDINGS_PRINTED]:
        name = finding.file_name or finding.source_path or ""
        print(f"{finding.kind.replace('_', ' '):<12}{printable(f'{name}: {finding.detail}')}")
    if more := report.found - min(len(report.findings), FINDINGS_PRINTED):
        print(f"and         {more:,} more")
    if report.findings_file:
        print(f"findings    {report.destination}/{report.findings_file} ({report.found:,} rows)")
    if report.quarantine:
        print(f"quarantine  {report.destination}/{report.quarantine}/ ({report.moved:,} files)")
    print(f"history     {history}")


def print_status(status: Status) -> None:
    """Print what a destination holds."""
    if status.info is None:
        print("manifest  none yet")
    else:
        counts = ", ".join(f"{count:,} {name}" for name, count in status.statuses.items())
        print(f"images    {status.info.rows:,} ({counts or 'none'}), {status.output_bytes / 1e6:,.1f} MB of outputs")
    if status.error_codes:
        print(f"failures  {', '.join(f'{count:,} × {code}' for code, count in status.error_codes.items())}")
    if run := status.last_run:
        print(
            f"last run  {run.ended:%Y-%m-%d %H:%M:%S %Z}, {run.images:,} images, {run.failed:,} failed ({run.run_id})"
        )
    if status.damaged_run:
        print(f"last run  {status.damaged_run}")
    if status.info:
        settings = ", ".join(f"{name} {value}" for name, value in status.info.recipe.model_dump().items())
        print(f"recipe    {settings} ({status.info.recipe_id})")
    if status.lease is None:
        print("lease     free")
    else:
        print(f"lease     {'held' if status.lease.is_live() else 'left behind'} by {status.lease.describe()}")
    print_unfinished(status.unfinished)


def print_unfinished(runs: int) -> None:
    """Print how many runs did not come to their end, if any."""
    if runs:
        print(f"resume    {runs} unfinished run(s), whose work the next run adopts")


def print_rebuilt(place: Destination, rebuilt: Rebuilt | None) -> None:
    """Print what a manifest was made of."""
    if rebuilt is None:
        print(f"{place.location}/manifest.parquet is whole: nothing was changed.")
        return
    print(f"manifest  {place.location}/manifest.parquet ({rebuilt.rows:,} rows)")
    if rebuilt.kept:
        print(f"kept      the damaged one is {rebuilt.kept}")
    if rebuilt.damaged_runs:
        print(f"damaged   {', '.join(rebuilt.damaged_runs)} of runs/ could not be used")
    if rebuilt.left_out:
        print(f"left out  {rebuilt.left_out:,} images deleted since, or without the output that was written down")
    print("Now run 'darkroom run' as ever: it makes again what the source still has of them.")


def print_history(history: History) -> None:
    """Print a line for each of the last runs, the newest first."""
    from darkroom.tasks.reporting.history import COLUMNS, bar_heights

    if not (history.runs or history.unreadable or history.denied):
        print("No run has published an image yet.")
    elif history.runs:
        bars = [_bar_of(height) for height in bar_heights(run.attempted for run in history.runs)]
        rows = [
            (*run.cells(), bar, f"{run.run_id}{' (interrupted)' if run.interrupted else ''}")
            for run, bar in zip(history.runs, bars, strict=True)
        ]
        _print_aligned([(*COLUMNS, "", "run"), *rows], len(COLUMNS))
    if history.unreadable:
        print(f"left out  {', '.join(history.unreadable)}: damaged, or of another version", file=sys.stderr)
    if history.denied:
        print(f"left out  {', '.join(history.denied)}: this user may not read them", file=sys.stderr)


def _bar_of(height: float) -> str:
    """Return a bar of at most `BAR_WIDTH` characters; that of an outlier ends in an arrow."""
    if height > 1:
        return "█" * (BAR_WIDTH - 1) + "▶"
    eighths = max(round(8 * BAR_WIDTH * height), 1 if height else 0)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def _print_aligned(rows: list[tuple[str, ...]], figures: int) -> None:
    """Print rows, the first columns to the right and the rest to the left, which may not fit a narrow terminal."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if sys.stdout.isatty():
        while len(widths) > figures and sum(widths) + 2 * len(widths) > shutil.get_terminal_size().columns:
            widths.pop()
    for row in rows:
        cells = list(zip(row, widths, strict=False))
        left = [cell.rjust(width) for cell, width in cells[:figures]]
        right = [cell.ljust(width) for cell, width in cells[figures:]]
        print("  ".join([*left, *right]).rstrip())
