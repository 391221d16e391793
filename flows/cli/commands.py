"""The `darkroom` command.

Slow modules are imported only when needed: `--help` is fast, and the Prefect server and the workers import while this
process does.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import Field

from darkroom.flows.cli import printing, terminal
from darkroom.flows.cli.inspection import KeptDestination, inspection
from darkroom.flows.cli.options import parse, with_settings
from darkroom.flows.cli.session import Session, session
from darkroom.flows.cli.streams import OutputError, open_streams
from darkroom.flows.runtime.machine import check_working_folder
from darkroom.flows.runtime.signals import ENDING, Ending, deferred
from darkroom.tasks.errors import DarkroomError
from darkroom.tasks.preflight import (
    check_compute,
    check_kept_destination,
    check_locations,
    check_recipe,
    check_sample,
    is_published,
)
from darkroom.tasks.settings import Compute, Recipe, Rules, Settings

if TYPE_CHECKING:
    from prefect.states import State

app = typer.Typer(
    help="Prepare an image dataset, night after night, and never lie about it.",
    add_completion=False,
    context_settings={"help_option_names": ["--help", "-h"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # Rich's tables leave only 20 of 80 columns to descriptions
)

LEAVE_SECONDS = 20.0
"""Time for the process to exit after the command has ended."""


def main() -> None:
    """Run the command line."""
    open_streams()
    leave = _Leave()
    # Registered first, so that it runs last, after the exit handlers of libraries.
    atexit.register(leave)
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:  # it may be ignored
        signal.signal(signal.SIGINT, Ending(on_first=_say_that_it_ends, on_second=_exit_at_once))
    leave.code = _exit_code()
    for number in ENDING:  # a second signal: exit without further clean-up
        signal.signal(number, lambda _number, _frame: leave())
    # Libraries join threads and processes at exit, which may hang in storage that does not answer.
    overdue = threading.Timer(LEAVE_SECONDS, leave)
    overdue.daemon = True
    overdue.start()
    sys.exit(leave.code)


class _Leave:
    """Exits at once: finalizing the interpreter would take half a second."""

    code = terminal.EXIT_FAILED

    def __call__(self) -> None:
        with suppress(OSError, OutputError):  # reported already
            sys.stdout.flush()
        sys.stderr.flush()
        os._exit(self.code)


def _say_that_it_ends() -> None:
    terminal.print_at_once("darkroom: Ending. Ctrl-C again ends it at once.")


def _exit_at_once() -> None:
    """Exit without clean-up: finished work is kept, and child processes end with this one."""
    terminal.print_at_once("darkroom: Interrupted again, and ended at once. The same command can be given again.")
    os._exit(128 + signal.SIGINT)


def _exit_code() -> int:
    """Run the app, and return its exit code."""
    try:
        with terminal.exit_on_error():
            check_working_folder()
            _run_app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


def _run_app() -> None:
    try:
        sys.exit(app(standalone_mode=False))  # in which Typer raises its errors, and returns exit codes
    except SystemExit:
        sys.stdout.flush()  # its errors become messages
        raise


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"darkroom {version('darkroom')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version of Darkroom.")
    ] = False,
) -> None:
    if not context.invoked_subcommand:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(terminal.EXIT_USAGE)


@app.command()
@with_settings(Recipe, Rules, Compute)
def run(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Folder, bucket or list of the images; it is only ever read.")
    ],
    destination: Annotated[
        str,
        typer.Argument(metavar="DESTINATION", help="Folder or bucket for outputs and manifest; made if need be."),
    ],
    verbose: Annotated[bool, typer.Option("--verbose", help="Show Prefect's log too.")] = False,
    **settings: Any,
) -> None:
    """Bring DESTINATION up to date with the images of SOURCE.

    Exit codes: 0 all is well, 1 the run failed, 2 wrong usage.
    """
    _quieten(verbose)
    recipe, rules, compute = parse(Recipe, settings), parse(Rules, settings), parse(Compute, settings)
    _, place = check_locations(source, destination, rules)
    check_compute(compute)
    with session(compute) as started:
        try:
            check_recipe(place, recipe, rules)
        except DarkroomError as other:  # another recipe, or a manifest that can't be read
            if rules.limit is None:
                raise
            terminal.note(f"A run without --limit would be refused. {other}")
        if rules.limit or not is_published(place):
            started.start_cluster()
        with deferred():
            from darkroom.flows.preprocess import preprocess

        _run_flow(
            started,
            lambda: preprocess(source, destination, recipe, rules, compute, return_state=True),
            printing.print_report,
            "What is finished is kept: the same command goes on from there.",
        )


class Reading(Settings):
    """What `verify` reads."""

    sample: float = Field(
        1.0,
        description="Fraction of the outputs to read again, above 0 and up to 1. Missing or foreign files and wrong "
        "sizes are found whatever the sample.",
    )


@app.command()
@with_settings(Reading, Compute)
def verify(
    destination: KeptDestination,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Move damaged and foreign files to a quarantine; the next run makes missing outputs again.",
        ),
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show Prefect's log too.")] = False,
    **settings: Any,
) -> None:
    """Compare the outputs of DESTINATION with its manifest.

    Without --repair, nothing is changed.

    Exit codes: 0 all is as the manifest says, 1 something is not or could not be verified, 2 wrong usage.
    """
    _quieten(verbose)
    sample, compute = parse(Reading, settings).sample, parse(Compute, settings)
    check_kept_destination(destination)
    check_sample(sample)
    check_compute(compute)
    with session(compute) as started:
        started.start_cluster()
        with deferred():
            from darkroom.flows import verify as verification

        _run_flow(
            started,
            lambda: verification.verify(destination, sample, repair, compute, return_state=True),
            printing.print_verification,
            "The same command begins again.",
        )


def _quieten(verbose: bool) -> None:
    # Without Prefect's notice about telemetry, which users of this command don't expect.
    os.environ.setdefault("DO_NOT_TRACK", "1")
    if not verbose:
        # The report is printed at the end; Prefect's log is in the UI.
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")


def _run_flow(started: Session, flow: Callable[[], State[Any]], show: Callable[[Any, str], None], hint: str) -> None:
    """Run a flow, and print its report, or why it failed.

    Args:
        started: the session to run it in.
        flow: calls the flow.
        show: prints a report and the location of its page.
        hint: what to do after an interruption.

    Raises:
        typer.Exit: the flow failed.
    """
    from darkroom.flows.runtime.outcome import report_of

    state = started.run(flow, interrupted=f"Interrupted. {hint}")
    if report := report_of(state):
        show(report, started.page(report.run_id))
    if not state.is_completed():
        terminal.error(str(state.message or state.name))
        raise typer.Exit(terminal.EXIT_FAILED)


app.add_typer(inspection)


if __name__ == "__main__":
    main()
