"""What the command line prints: progress during a run, and a few lines at its end."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from darkroom.tasks.errors import DarkroomError, SettingsError

if TYPE_CHECKING:
    from darkroom.flows.runtime.progress import Listener, Progress
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
"""Without a terminal, progress is printed as a line: the first after this time, then at this interval."""

BAR_WIDTH = 12

FINDINGS_PRINTED = 10

UNLIMITED_WIDTH = 10_000
"""Characters of a line that is not printed to a terminal."""


def error(message: str) -> None:
    """Print an error message on standard error."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"[red]darkroom:[/red] {escape(message)}")


def print_at_once(message: str) -> None:
    """Print a line on standard error from a signal handler, over a progress bar, and show the cursor again."""
    clear_bar = "\r\x1b[2K\x1b[?25h" if sys.stderr.isatty() else ""
    with suppress(OSError):
        os.write(sys.stderr.fileno(), f"{clear_bar}{message}\n".encode())


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Turn errors of Darkroom into a message and an exit code, without a traceback."""
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
    """Show the progress of the run that is started in the block: as a bar on a terminal, else as lines."""
    from darkroom.flows.runtime.progress import notice_listener, progress_listener

    with _bar() if sys.stderr.isatty() else nullcontext() as bar:
        token = progress_listener.set(_bar_listener(bar) if bar else _LinePrinter())
        notices = notice_listener.set(_print_notice)
        try:
            yield
        finally:
            notice_listener.reset(notices)
            progress_listener.reset(token)


def _print_notice(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # above a bar: Rich redirects it


def _bar() -> Bar:
    return Bar(
        SpinnerColumn(),
        BarColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def _bar_listener(bar: Bar) -> Listener:
    task = bar.add_task("starting", total=None)

    def listen(progress: Progress[Any]) -> None:
        bar.update(task, total=progress.images, completed=progress.done, description=progress.describe())

    return listen


class _LinePrinter:
    """Prints a line of progress every `LINE_SECONDS`."""

    def __init__(self) -> None:
        self._next_at = FIRST_LINE_SECONDS

    def __call__(self, progress: Progress[Any]) -> None:
        if progress.seconds >= self._next_at:
            self._next_at = progress.seconds + LINE_SECONDS
            print(progress.describe(), file=sys.stderr, flush=True)


def _line(label: str, text: str, width: int = 10) -> None:
    """Print a labelled line; not as a table, in which rich would break long paths."""
    print(f"{label:<{width}}{text}")


def _count_codes(codes: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} × {code}" for code, count in codes.items())


def print_report(report: RunReport, history: str) -> None:
    """Print what a run did, and where to look."""
    rate = f" at {report.images_per_second:,.1f} images/s" if report.attempted else ""
    print(f"{report.headline()}{rate} ({report.seconds:.1f} s)")
    if report.preview:
        _print_preview(report)
        return
    if report.adopted:
        _line("adopted", f"{report.adopted:,} images that an interrupted run had finished")
    if report.damaged_parts:
        from darkroom.tasks.reporting.run_report import describe_damage

        _line("damaged", describe_damage(report.damaged_parts))
    if report.error_codes:
        _line("failures", _count_codes(report.error_codes))
    if report.skipped:
        from darkroom.tasks.reporting.skipped import describe_skipped, hints

        _line("skipped", describe_skipped(report.skipped, report.not_images))
        for hint in hints(report.skipped, report.not_images):
            _line("hint", hint)
    _line("manifest", f"{report.destination}/manifest.parquet ({report.known:,} rows, {report.known_failed:,} failed)")
    _line("outputs", f"{report.destination}/images/")
    _line("history", history)


def _print_preview(report: RunReport) -> None:
    from darkroom.tasks.reporting.text import printable

    for failure in report.failures:
        print(printable(f"{failure.source_path}: {failure.error_code}: {failure.error_message}"))
    for picture in report.pictures:
        _line("picture", picture)
    _line("outputs", f"{report.destination}/images/")
    print("Nothing was published; run without --limit.")


def print_verification(report: VerifyReport, history: str) -> None:
    """Print what a verification found, and where to look."""
    from darkroom.tasks.reporting.text import printable

    line = partial(_line, width=12)

    rate = f", {report.bytes / report.work_seconds / 1e6:,.1f} MB/s" if report.work_seconds else ""
    print(f"{report.headline()[:-1]}{rate} ({report.seconds:.1f} s)")
    for finding in report.findings[:FINDINGS_PRINTED]:
        name = finding.file_name or finding.source_path or ""
        line(finding.kind.replace("_", " "), printable(f"{name}: {finding.detail}"))
    if more := report.found - min(len(report.findings), FINDINGS_PRINTED):
        line("and", f"{more:,} more")
    if report.findings_file:
        line("findings", f"{report.destination}/{report.findings_file} ({report.found:,} rows)")
    if report.quarantine:
        line("quarantine", f"{report.destination}/{report.quarantine}/ ({report.moved:,} files)")
    line("history", history)


def print_status(status: Status) -> None:
    """Print what a destination holds."""
    if status.info is None:
        _line("manifest", "none yet")
    else:
        counts = ", ".join(f"{count:,} {name}" for name, count in status.statuses.items())
        size = f"{status.output_bytes / 1e6:,.1f} MB of outputs"
        _line("images", f"{status.info.rows:,} ({counts or 'none'}), {size}")
    if status.error_codes:
        _line("failures", _count_codes(status.error_codes))
    if run := status.last_run:
        ended = f"{run.ended:%Y-%m-%d %H:%M:%S %Z}"
        _line("last run", f"{ended}, {run.images:,} images, {run.failed:,} failed ({run.run_id})")
    if status.damaged_run:
        _line("last run", status.damaged_run)
    if status.info:
        settings = ", ".join(f"{name} {value}" for name, value in status.info.recipe.model_dump().items())
        _line("recipe", f"{settings} ({status.info.recipe_id})")
    if status.lease is None:
        _line("lease", "free")
    else:
        _line("lease", f"{'held' if status.lease.is_live() else 'left behind'} by {status.lease.describe()}")
    print_unfinished(status.unfinished)


def print_unfinished(runs: int) -> None:
    """Print how many runs were interrupted and are not adopted yet, if any."""
    if runs:
        _line("resume", f"{runs} unfinished run(s), whose work the next run adopts")


def print_rebuilt(place: Destination, rebuilt: Rebuilt | None) -> None:
    """Print from what a manifest was rebuilt; None means that it was intact."""
    if rebuilt is None:
        print(f"{place.location}/manifest.parquet is whole: nothing was changed.")
        return
    _line("manifest", f"{place.location}/manifest.parquet ({rebuilt.rows:,} rows)")
    if rebuilt.kept:
        _line("kept", f"the damaged one is {rebuilt.kept}")
    if rebuilt.damaged_runs:
        _line("damaged", f"{', '.join(rebuilt.damaged_runs)} of runs/ could not be used")
    if rebuilt.left_out:
        _line("left out", f"{rebuilt.left_out:,} images deleted since, or without the output that was written down")
    print("Now run 'darkroom run' as ever: it makes again what the source still has of them.")


def print_history(history: History) -> None:
    """Print a table of the last runs, the newest first."""
    from darkroom.tasks.reporting.history import COLUMNS, bar_heights

    if not (history.runs or history.unreadable or history.denied):
        print("No run has published an image yet.")
    elif history.runs:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
        for column in COLUMNS:
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True, overflow="crop", ratio=None)
        table.add_column("run", no_wrap=True, overflow="ellipsis")
        heights = bar_heights(run.attempted for run in history.runs)
        for run, height in zip(history.runs, heights, strict=True):
            table.add_row(*run.cells(), _bar_of(height), f"{run.run_id}{' (interrupted)' if run.interrupted else ''}")
        width = None if sys.stdout.isatty() else UNLIMITED_WIDTH
        Console(width=width, highlight=False, markup=False).print(table)
    if history.unreadable:
        print(f"left out  {', '.join(history.unreadable)}: damaged, or of another version", file=sys.stderr)
    if history.denied:
        print(f"left out  {', '.join(history.denied)}: this user may not read them", file=sys.stderr)


def _bar_of(height: float) -> str:
    """Return a bar of at most `BAR_WIDTH` characters; an outlier's ends in an arrow."""
    if height > 1:
        return "█" * (BAR_WIDTH - 1) + "▶"
    eighths = max(round(8 * BAR_WIDTH * height), 1 if height else 0)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
