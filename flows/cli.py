"""The `darkroom` command.

Nothing heavy is imported before it is needed: `--help` is there at once, and a run starts its Prefect
server and its workers' imports before it imports Prefect itself.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from flows import terminal
from flows.cluster import warm_up
from flows.server import LocalServer, local_server
from tasks.check import check_locations, check_recipe
from tasks.destination import Destination
from tasks.errors import DarkroomError, SettingsError
from tasks.recipe import Color, Compute, Filter, Fit, Format, Recipe, Rules, Settings, Truncated
from tasks.storage import local_folder

if TYPE_CHECKING:
    from tasks.report import RunReport

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
    try:
        app()
    except SettingsError as problem:
        terminal.error(str(problem))
        sys.exit(EXIT_USAGE)
    except DarkroomError as problem:
        terminal.error(str(problem))
        sys.exit(EXIT_FAILED)


def _option(model: type[Settings], name: str, *flags: str) -> Any:
    """Return the option of a setting, with the setting's own description as help."""
    return typer.Option(*flags, help=model.model_fields[name].description, rich_help_panel=model.__name__)


@app.command()
def run(
    source: Annotated[str, typer.Argument(help="Folder of the images; it is only ever read.")],
    destination: Annotated[str, typer.Argument(help="Folder for outputs and manifest; made if need be.")],
    width: Annotated[int, _option(Recipe, "width")] = 600,
    height: Annotated[int, _option(Recipe, "height")] = 600,
    fit: Annotated[Fit, _option(Recipe, "fit")] = "fill",
    upscale: Annotated[bool, _option(Recipe, "upscale")] = True,
    filter: Annotated[Filter, _option(Recipe, "filter")] = "auto",  # noqa: A002 - the setting's name
    format: Annotated[Format, _option(Recipe, "format")] = "jpeg",  # noqa: A002 - the setting's name
    quality: Annotated[int, _option(Recipe, "quality")] = 90,
    background: Annotated[str, _option(Recipe, "background")] = "#ffffff",
    color: Annotated[Color, _option(Recipe, "color")] = "rgb",
    truncated: Annotated[Truncated, _option(Recipe, "truncated")] = "fail",
    force: Annotated[bool, _option(Rules, "force", "--force")] = False,
    rebuild: Annotated[bool, _option(Rules, "rebuild", "--rebuild")] = False,
    follow_symlinks: Annotated[bool, _option(Rules, "follow_symlinks", "--follow-symlinks")] = False,
    max_pixels: Annotated[int, _option(Rules, "max_pixels")] = 250_000_000,
    max_delete_ratio: Annotated[float, _option(Rules, "max_delete_ratio")] = 0.2,
    max_failure_ratio: Annotated[float, _option(Rules, "max_failure_ratio")] = 0.1,
    workers: Annotated[int | None, _option(Compute, "workers")] = None,
    scheduler: Annotated[str | None, _option(Compute, "scheduler")] = None,
    cluster_class: Annotated[str | None, _option(Compute, "cluster_class")] = None,
    cluster_kwargs: Annotated[
        str, typer.Option(help="Arguments of the cluster class, as JSON.", rich_help_panel="Compute")
    ] = "{}",
    verbose: Annotated[bool, typer.Option("--verbose", help="Show Prefect's log too.")] = False,
) -> None:
    """Bring DESTINATION up to date with the images of SOURCE.

    Exit codes: 0 all is well, 1 the run failed, 2 wrong usage.
    """
    values = locals()
    recipe, rules, compute = _settings(values | {"cluster_kwargs": _json(cluster_kwargs)})
    report, problem = _run_flow(source, destination, recipe, rules, compute, verbose=verbose)
    if problem:
        terminal.error(problem)
    raise typer.Exit(EXIT_FAILED if problem or not report else 0)


@app.command()
def status(destination: Annotated[str, typer.Argument(help="Folder that runs have written to.")]) -> None:
    """Say what DESTINATION holds: counts by status and error code, last run, recipe, lease."""
    from tasks.status import read_status

    terminal.print_status(read_status(Destination(local_folder(destination, "destination"))))


def _settings(values: dict[str, Any]) -> tuple[Recipe, Rules, Compute]:
    def of(model: type[Settings]) -> dict[str, Any]:
        return {name: values[name] for name in model.model_fields}

    try:
        return Recipe(**of(Recipe)), Rules(**of(Rules)), Compute(**of(Compute))
    except ValidationError as problem:
        details = (
            f"--{'.'.join(map(str, error['loc'])).replace('_', '-')}: {error['msg']} (it is {error['input']!r})"
            if error["loc"]
            else error["msg"]
            for error in problem.errors()
        )
        raise SettingsError(f"{'; '.join(details)}. See darkroom run --help.") from problem


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as problem:
        raise SettingsError(f"--cluster-kwargs: {text!r} is not JSON ({problem}).") from problem


def _run_flow(
    source: str, destination: str, recipe: Recipe, rules: Rules, compute: Compute, *, verbose: bool
) -> tuple[RunReport | None, str]:
    """Run the flow; return its report, if it came to one, and why it failed, if it did."""
    _, place = check_locations(source, destination)
    if not verbose:
        # What a user needs is printed at the end; Prefect's log of it is in the UI.
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    # Server and workers begin with their own imports while this process goes through its.
    with _server_if_needed() as server:
        if not compute.scheduler:
            warm_up()
        check_recipe(place, recipe, rules)
        from flows.preprocess import preprocess, report_of

        if server:
            server.wait_until_healthy()
        with terminal.shown_progress():
            state = preprocess(source, destination, recipe, rules, compute, return_state=True)
        report = report_of(state)
        if report:
            terminal.print_report(report, _history(report.run_id, local=bool(server)))
        return report, "" if state.is_completed() else (state.message or state.name)


def _history(run_id: str, *, local: bool) -> str:
    """Say where the run's page is."""
    path = f"runs/flow-run/{run_id}"
    if local:
        return f"'prefect server start', then http://127.0.0.1:4200/{path}"
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
    if "PREFECT_API_URL" in os.environ:
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
