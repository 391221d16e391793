"""The `darkroom` command.

Slow modules are imported only when they are needed: `--help` is fast, and a run starts its Prefect server and its
workers' imports before it imports Prefect itself.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any

import typer

from darkroom.flows.cli import terminal
from darkroom.flows.cli.options import parse, with_settings
from darkroom.flows.cli.session import Session, session
from darkroom.flows.runtime.signals import ENDING, Ending, deferred
from darkroom.tasks.dataset.layout import MANIFEST, Destination, open_destination
from darkroom.tasks.preflight import (
    check_compute,
    check_is_destination,
    check_kept_destination,
    check_locations,
    check_manifest,
    check_recipe,
    check_sample,
)
from darkroom.tasks.settings import Compute, Recipe, Rules
from darkroom.tasks.storage.store import exists

if TYPE_CHECKING:
    from prefect.states import State

app = typer.Typer(
    help="Prepare an image dataset, night after night, and never lie about it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

LEAVE_SECONDS = 20.0
"""How long the process may take to exit after the command has ended."""


def main() -> None:
    """Run the command line."""
    leave = _Leave()
    # Registered first, it runs last: after the exit handlers of libraries.
    atexit.register(leave)
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:  # it may be ignored
        signal.signal(signal.SIGINT, Ending(_exit_at_once))
    leave.code = _exit_code()
    for number in ENDING:  # a second signal: exit without further clean-up
        signal.signal(number, lambda _number, _frame: leave())
    # Libraries join threads and processes at exit, and one of them may hang in storage that does not answer.
    overdue = threading.Timer(LEAVE_SECONDS, leave)
    overdue.daemon = True
    overdue.start()
    sys.exit(leave.code)


class _Leave:
    """Exits without finalizing the interpreter, which would take half a second."""

    code = terminal.EXIT_FAILED

    def __call__(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(self.code)


def _exit_at_once() -> None:
    """Exit without any clean-up: what is finished is kept, and child processes end when this one does."""
    terminal.print_at_once("darkroom: Interrupted again, and ended at once. The same command can be given again.")
    os._exit(128 + signal.SIGINT)


def _exit_code() -> int:
    try:
        with terminal.exit_on_error():
            app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"darkroom {version('darkroom')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version of Darkroom.")
    ] = False,
) -> None:
    pass


@app.command()
@with_settings(Recipe, Rules, Compute)
def run(
    source: Annotated[str, typer.Argument(help="Folder or bucket of the images; it is only ever read.")],
    destination: Annotated[str, typer.Argument(help="Folder or bucket for outputs and manifest.")],
    verbose: Annotated[bool, typer.Option("--verbose", help="Show Prefect's log too.")] = False,
    **settings: Any,
) -> None:
    """Bring DESTINATION up to date with the images of SOURCE.

    Exit codes: 0 all is well, 1 the run failed, 2 wrong usage.
    """
    _quieten(verbose)
    recipe, rules, compute = parse(Recipe, settings), parse(Rules, settings), parse(Compute, settings)
    _, place = check_locations(source, destination)
    check_compute(compute)
    with session(compute) as started:
        if rules.limit is None:
            check_recipe(place, recipe, rules)
        if rules.limit or not exists(place.store, MANIFEST):
            started.start_cluster()
        with deferred():
            from darkroom.flows.preprocess import preprocess

        _run_flow(
            started,
            lambda: preprocess(source, destination, recipe, rules, compute, return_state=True),
            terminal.print_report,
            "What is finished is kept: the same command goes on from there.",
        )


@app.command()
@with_settings(Compute)
def verify(
    destination: Annotated[str, typer.Argument(help="Folder that runs have written to.")],
    sample: Annotated[
        float,
        typer.Option(
            help="Part of the outputs to read again, above 0 and up to 1. Whether outputs are there, have the right "
            "size, and are all that is there, is looked up for all."
        ),
    ] = 1.0,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Move damaged and foreign files to a quarantine; the next run makes again what is missing then.",
        ),
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show Prefect's log too.")] = False,
    **settings: Any,
) -> None:
    """Compare the outputs of DESTINATION with its manifest; without --repair, nothing is changed.

    Exit codes: 0 all is as the manifest says, 1 something is not or could not be verified, 2 wrong usage.
    """
    _quieten(verbose)
    compute = parse(Compute, settings)
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
            terminal.print_verification,
            "The same command begins again.",
        )


@app.command()
def status(destination: Annotated[str, typer.Argument(help="Folder that runs have written to.")]) -> None:
    """Say what DESTINATION holds: counts by status and error code, last run, recipe, lease.

    Manifest and last run are made sure to be whole; outputs are not looked at, which verify does.

    Exit codes: 0 all is well, 1 the manifest is damaged, 2 wrong usage.
    """
    from darkroom.tasks.reporting.status import read_status

    terminal.print_status(read_status(_existing(destination)))


@app.command()
def rebuild_manifest(destination: Annotated[str, typer.Argument(help="Folder that runs have written to.")]) -> None:
    """Make a lost or damaged manifest of DESTINATION again, from the files of its runs and its outputs."""
    from darkroom.tasks import rebuild

    place = _existing(destination)
    terminal.print_rebuilt(place, rebuild.rebuild_manifest(place, "rebuild-manifest"))


@app.command()
def history(
    destination: Annotated[str, typer.Argument(help="Folder that runs have written to.")],
    last: Annotated[int, typer.Option(min=1, help="How many runs to show.")] = 30,
) -> None:
    """Say how the last runs of DESTINATION went, the newest first. A run with nothing to do leaves no trace here.

    Exit codes: 0 all is well, 1 the manifest is damaged or missing, 2 wrong usage.
    """
    from darkroom.tasks.dataset.lease import read_lease
    from darkroom.tasks.reporting.history import read_history
    from darkroom.tasks.reporting.status import count_unfinished

    place = _existing(destination)
    terminal.print_history(read_history(place, last))
    terminal.print_unfinished(count_unfinished(place, read_lease(place)))
    check_manifest(place)


def _existing(destination: str) -> Destination:
    place = open_destination(destination)
    check_is_destination(place)
    return place


def _quieten(verbose: bool) -> None:
    if not verbose:
        # The report is printed at the end; Prefect's log is in the UI.
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")


def _run_flow(started: Session, flow: Callable[[], State[Any]], show: Callable[[Any, str], None], hint: str) -> None:
    """Run a flow, and print its report or why it failed.

    Args:
        started: the session to run it in.
        flow: calls the flow.
        show: prints its report and where its page is.
        hint: what to do after an interruption.

    Raises:
        typer.Exit: it failed.
    """
    from darkroom.flows.runtime.outcome import report_of

    state = started.run(flow, interrupted=f"Interrupted. {hint}")
    if report := report_of(state):
        show(report, started.page(report.run_id))
    if not state.is_completed():
        terminal.error(str(state.message or state.name))
        raise typer.Exit(terminal.EXIT_FAILED)


if __name__ == "__main__":
    main()
