"""The `darkroom` command.

Nothing heavy is imported before it is needed: `--help` is there at once, and a run starts its Prefect
server and its workers' imports before it imports Prefect itself.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from flows import terminal
from flows.cluster import early_cluster, is_local, warm_up
from flows.options import parse, with_settings
from flows.server import LocalServer, check_api, light_tls, local_server, sigterm_exits, unwatched
from tasks.check import check_compute, check_is_destination, check_locations, check_recipe
from tasks.destination import Destination
from tasks.errors import DarkroomError, SettingsError
from tasks.recipe import Compute, Recipe, Rules
from tasks.storage import local_folder

EXIT_FAILED = 1
EXIT_USAGE = 2


app = typer.Typer(
    help="Prepare an image dataset, night after night, and never lie about it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line."""
    leaving = _Leaving()
    # Registered first, it runs last: after what the libraries do at the end of a process.
    atexit.register(leaving)
    leaving.code = _exit_code()
    sys.exit(leaving.code)


class _Leaving:
    """Ends the process without the half second in which Python would take all modules apart."""

    code = EXIT_FAILED

    def __call__(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(self.code)


def _exit_code() -> int:
    try:
        app()
    except SettingsError as problem:
        terminal.error(str(problem))
        return EXIT_USAGE
    except DarkroomError as problem:
        terminal.error(str(problem))
        return EXIT_FAILED
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


@app.command()
@with_settings(Recipe, Rules, Compute)
def run(
    source: Annotated[str, typer.Argument(help="Folder of the images; it is only ever read.")],
    destination: Annotated[str, typer.Argument(help="Folder for outputs and manifest; made if need be.")],
    verbose: Annotated[bool, typer.Option("--verbose", help="Show Prefect's log too.")] = False,
    **settings: Any,
) -> None:
    """Bring DESTINATION up to date with the images of SOURCE.

    Exit codes: 0 all is well, 1 the run failed, 2 wrong usage.
    """
    if not verbose:
        # What a user needs is printed at the end; Prefect's log of it is in the UI.
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    problem = _run_flow(source, destination, parse(Recipe, settings), parse(Rules, settings), parse(Compute, settings))
    if problem:
        terminal.error(problem)
        raise typer.Exit(EXIT_FAILED)


@app.command()
def status(destination: Annotated[str, typer.Argument(help="Folder that runs have written to.")]) -> None:
    """Say what DESTINATION holds: counts by status and error code, last run, recipe, lease."""
    from tasks.status import read_status

    terminal.print_status(read_status(Destination(local_folder(destination, "destination"))))


@app.command()
def rebuild_manifest(destination: Annotated[str, typer.Argument(help="Folder that runs have written to.")]) -> None:
    """Make a lost or damaged manifest of DESTINATION again, from the files of its runs and its outputs."""
    from tasks import rebuild

    place = Destination(local_folder(destination, "destination"))
    check_is_destination(place)
    terminal.print_rebuilt(place, rebuild.rebuild_manifest(place, "rebuild-manifest"))


@app.command()
def history(
    destination: Annotated[str, typer.Argument(help="Folder that runs have written to.")],
    last: Annotated[int, typer.Option(min=1, help="How many runs to show.")] = 30,
) -> None:
    """Say how the last runs of DESTINATION went, the newest first. A run with nothing to do leaves no trace here."""
    from tasks.history import read_history

    place = Destination(local_folder(destination, "destination"))
    check_is_destination(place)
    terminal.print_history(read_history(place, last))


def _run_flow(source: str, destination: str, recipe: Recipe, rules: Rules, compute: Compute) -> str:
    """Run the flow, print what came of it, and return why it failed; nothing if it did not."""
    _, place = check_locations(source, destination)
    check_compute(compute)
    # Server and workers begin with their own imports while this process goes through its.
    with sigterm_exits(), _server_if_needed() as server, ExitStack() as stack:
        if is_local(compute):
            warm_up()
        check_recipe(place, recipe, rules)
        if not place.manifest.exists():
            stack.enter_context(early_cluster(compute))
        from flows.preprocess import preprocess, report_of

        if server:
            server.wait_until_healthy()
            stack.enter_context(unwatched())
        else:
            check_api()
        stack.enter_context(light_tls())
        try:
            with terminal.shown_progress():
                state = preprocess(source, destination, recipe, rules, compute, return_state=True)
        except (KeyboardInterrupt, SystemExit):
            terminal.error("Interrupted. What is finished is kept: the same command goes on from there.")
            raise
        if report := report_of(state):
            terminal.print_report(report, _page(report.run_id, local=bool(server)))
        return "" if state.is_completed() else state.message or state.name


def _page(run_id: str, *, local: bool) -> str:
    """Say where the run's page is."""
    path = f"runs/flow-run/{run_id}"
    if local:
        prefect = os.path.relpath(Path(sys.executable).with_name("prefect"))
        return f"'{prefect} server start', then http://127.0.0.1:4200/{path}"
    from prefect.settings import get_current_settings

    return f"{get_current_settings().ui_url}/{path}"


@contextmanager
def _server_if_needed() -> Iterator[LocalServer | None]:
    if _api_is_configured():
        yield None
    else:
        with local_server() as server:
            yield server


def _api_is_configured() -> bool:
    """Say whether Prefect has an API to talk to, importing Prefect only if there is any doubt."""
    if os.environ.get("PREFECT_API_URL"):
        return True
    home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    hints = {
        Path(os.environ.get("PREFECT_PROFILES_PATH", home / "profiles.toml")): "PREFECT_API_URL",
        Path(".env"): "PREFECT_API_URL",
        Path("prefect.toml"): "api",
        Path("pyproject.toml"): "tool.prefect",
    }
    if not any(path.is_file() and hint in path.read_text(errors="replace") for path, hint in hints.items()):
        return False
    from prefect.settings import get_current_settings

    return bool(get_current_settings().api.url)


if __name__ == "__main__":
    main()
