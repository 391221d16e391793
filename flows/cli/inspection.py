"""Commands that inspect or repair a destination without a run."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from pydantic import Field

from darkroom.flows.cli import printing, terminal
from darkroom.flows.cli.options import parse, with_settings
from darkroom.tasks.dataset.layout import Destination, open_destination
from darkroom.tasks.errors import ErrorCode, InvalidSettingError
from darkroom.tasks.preflight import check_is_destination, check_manifest, is_published
from darkroom.tasks.settings import Settings
from darkroom.tasks.wording import did_you_mean

KeptDestination = Annotated[
    str, typer.Argument(metavar="DESTINATION", help="Folder or bucket that runs have written to.")
]

inspection = typer.Typer()


class Shown(Settings):
    """What `history` shows."""

    last: int = Field(30, ge=1, description="How many runs to show.")


@inspection.command()
def status(destination: KeptDestination) -> None:
    """Show the state of DESTINATION.

    That is counts by status and error code, last run, recipe and lease. It checks that the manifest and the last run's
    file are whole; outputs are checked by verify.

    Exit codes: 0 all is well, 1 the manifest is damaged or missing, 2 wrong usage.
    """
    from darkroom.tasks.reporting.status import read_status

    place = _existing(destination)
    found = read_status(place)
    printing.print_status(found)
    if found.info is None:
        check_manifest(place)


@inspection.command()
def failures(
    destination: KeptDestination,
    code: Annotated[
        list[str] | None, typer.Option(metavar="CODE", help="List only images with one of these error codes.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object on each line.")] = False,
) -> None:
    """List the images of DESTINATION that failed, and why.

    Each is a line of path: error code: message.

    Exit codes: 0 all is well, 1 the manifest is damaged or missing, 2 wrong usage.
    """
    from darkroom.tasks.reporting.failed_images import read_failed

    place, codes = _existing(destination), [_error_code(each) for each in code or ()]
    if not is_published(place):
        check_manifest(place)
        terminal.note("No run has published here yet. Once one has, this lists what failed.")
        return
    count = 0
    for image in read_failed(place, codes):
        count += 1
        print(printing.as_json(image) if as_json else printing.describe_failed(image))
    if codes and not count:
        terminal.note(f"No image has failed with {' or '.join(codes)}.")


@inspection.command()
def rebuild_manifest(destination: KeptDestination) -> None:
    """Make a lost or damaged manifest of DESTINATION again.

    It is made from the files of its runs and its outputs.

    Exit codes: 0 the manifest is whole, 1 it can't be made again, 2 wrong usage.
    """
    from darkroom.tasks import rebuild

    place = _existing(destination)
    printing.print_rebuilt(place, rebuild.rebuild_manifest(place, "rebuild-manifest"))


@inspection.command()
@with_settings(Shown)
def history(destination: KeptDestination, **settings: Any) -> None:
    """Show the last runs of DESTINATION.

    The newest comes first. A run with nothing to do leaves no trace here.

    Exit codes: 0 all is well, 1 the manifest is damaged or missing, 2 wrong usage.
    """
    from darkroom.tasks.dataset.lease import read_lease
    from darkroom.tasks.reporting.history import read_history
    from darkroom.tasks.reporting.status import read_unfinished

    last = parse(Shown, settings).last
    place = _existing(destination)
    printing.print_history(read_history(place, last))
    printing.print_unfinished(read_unfinished(place, read_lease(place)))
    check_manifest(place)


def _existing(destination: str) -> Destination:
    place = open_destination(destination)
    check_is_destination(place)
    return place


def _error_code(text: str) -> ErrorCode:
    try:
        return ErrorCode(text)
    except ValueError:
        close = did_you_mean(text, map(str, ErrorCode))
        raise InvalidSettingError(f"`code={text}`: give one of {', '.join(ErrorCode)}{close}") from None
