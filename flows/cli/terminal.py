"""Print errors, and the progress of a run."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from darkroom.flows.cli.options import name_options
from darkroom.tasks.errors import DarkroomError, SettingsError
from darkroom.tasks.reporting.text import printable

if TYPE_CHECKING:
    from darkroom.flows.runtime.progress import Listener, Progress

EXIT_FAILED = 1
EXIT_USAGE = 2

FIRST_LINE_SECONDS = 2.0
LINE_SECONDS = 10.0
"""Without a terminal, progress is printed as a line: the first after this time, then at this interval."""


def error(message: str) -> None:
    """Print an error message on standard error, with its settings written as options."""
    console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
    console.print(f"[red]darkroom:[/red] {escape(_safe(message))}")


def note(message: str) -> None:
    """Print on standard error what a command is doing, with its settings written as options."""
    print(f"darkroom: {_safe(message)}", file=sys.stderr, flush=True)


def _safe(message: str) -> str:
    """Return a message with its settings written as options, without control characters, which names may contain."""
    return "\n".join(map(printable, name_options(message).split("\n")))


def print_at_once(message: str) -> None:
    """Print a line on standard error from a signal handler, over a progress bar, and show the cursor again."""
    clear_bar = "\r\x1b[2K\x1b[?25h" if sys.stderr.isatty() else ""
    with suppress(OSError):
        os.write(sys.stderr.fileno(), f"{clear_bar}{message}\n".encode())


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Turn errors of Darkroom and of Typer into a message and an exit code, without a traceback."""
    try:
        yield
    except typer.TyperException as problem:
        message = problem.format_message()
        error(f"{message}{'' if message.endswith(('.', '?')) else '.'} See --help.")
        sys.exit(problem.exit_code)
    except SettingsError as problem:
        error(str(problem))
        sys.exit(EXIT_USAGE)
    except DarkroomError as problem:
        error(str(problem))
        sys.exit(EXIT_FAILED)


@contextmanager
def shown_progress() -> Iterator[None]:
    """Show the progress of the run within the block: as a bar on a terminal, otherwise as lines."""
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
    print(text, file=sys.stderr, flush=True)  # Rich redirects it to above a bar


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
    task = bar.add_task("listing and planning", total=None)

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
