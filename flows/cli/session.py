"""A flow run on the command line: its Prefect server, an early start of its workers, its progress."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.flows.cli import terminal
from darkroom.flows.cli.waiting import named
from darkroom.flows.runtime.cluster import early_cluster, is_local, warm_up
from darkroom.flows.runtime.database import prefect_home
from darkroom.flows.runtime.environment import environment
from darkroom.flows.runtime.local_server import (
    LocalServer,
    check_api,
    lean_client,
    local_server,
    without_password,
)
from darkroom.flows.runtime.machine import check_machine
from darkroom.flows.runtime.proxies import loopback_direct
from darkroom.flows.runtime.running_server import find_server
from darkroom.flows.runtime.signals import exit_at_once, interruptible, sigterm_exits
from darkroom.tasks.errors import DarkroomError, SettingsError
from darkroom.tasks.settings import Compute

if TYPE_CHECKING:
    from prefect.states import State


class Session:
    """One flow run of the command line, with the server and the workers that were started for it."""

    def __init__(self, compute: Compute, server: LocalServer | None, stack: ExitStack) -> None:
        self._compute = compute
        self._server = server
        self._stack = stack

    def start_cluster(self) -> None:
        """Start the cluster in the background, for a flow that will surely need it."""
        self._stack.enter_context(early_cluster(self._compute))

    def run(self, flow: Callable[[], State[Any]], interrupted: str) -> State[Any]:
        """Wait for the API, run a flow, show its progress, and return its final state.

        Args:
            flow: calls the flow.
            interrupted: message to print if it is interrupted.
        """
        if self._server:
            with named(self._server.waits_for):
                self._server.wait_until_healthy()
            threading.Thread(target=_end_with, args=(self._server,), name="server", daemon=True).start()
            self._stack.enter_context(_lean_client(self._compute))
        import httpx

        from darkroom.flows.runtime.arrow import hide_pandas

        hide_pandas()
        try:
            with terminal.shown_progress(), interruptible() as raise_again:
                state = flow()
                if not state.is_completed():
                    raise_again()
        except httpx.HTTPError as error:
            raise DarkroomError(
                f"The Prefect server was lost before it stored the run's final state ({error}). What the run finished "
                "is kept: make sure that the server answers, and give the same command again."
            ) from error
        except (KeyboardInterrupt, SystemExit):
            terminal.error(interrupted)
            raise
        return state

    def page(self, run_id: str) -> str:
        """Return where to find the run's page."""
        if self._server:
            prefect = os.path.relpath(Path(sys.executable).with_name("prefect"))
            return f"'{prefect} server start' shows it at http://127.0.0.1:4200"
        from prefect.settings import get_current_settings

        return f"{without_password(str(get_current_settings().ui_url))}/runs/flow-run/{run_id}"


def _end_with(server: LocalServer) -> None:
    """Exit when the server is killed: the run would otherwise retry requests for minutes at its end."""
    if server.is_lost():
        terminal.print_at_once(
            "darkroom: The local Prefect server was killed. What is finished is kept: the same command goes on from "
            "there."
        )
        exit_at_once(terminal.EXIT_FAILED)


@contextmanager
def session(compute: Compute) -> Iterator[Session]:
    """Start the server and the workers early, so that they import while this process does."""
    check_machine()
    api_url = _configured_api()
    with sigterm_exits(), loopback_direct(api_url), _server_if_needed(api_url) as server, ExitStack() as stack:
        if is_local(compute):
            warm_up()
        if not server:
            stack.enter_context(_lean_client(compute))
        if api_url:
            with named(lambda: f"the Prefect server at {without_password(api_url)} to answer"):
                check_api()
        yield Session(compute, server, stack)


def _lean_client(compute: Compute) -> AbstractContextManager[None]:
    return lean_client(own_process=True, local_workers=is_local(compute))


@contextmanager
def _server_if_needed(api_url: str | None) -> Iterator[LocalServer | None]:
    if api_url:
        terminal.note("Connecting to the configured Prefect server.")
        yield None
    elif url := find_server(terminal.note):
        terminal.note(f"Using the Prefect server at {url}.")
        with environment({"PREFECT_API_URL": url}):
            yield None
    else:
        terminal.note("Starting a local Prefect server and the workers.")
        with local_server() as server:
            yield server


def _configured_api() -> str | None:
    """Return the configured Prefect API's address, if any; import Prefect, which is slow, only if a file may set it."""
    if url := os.environ.get("PREFECT_API_URL"):
        return url
    home = prefect_home()
    hints = {
        Path(os.environ.get("PREFECT_PROFILES_PATH", home / "profiles.toml")): "PREFECT_API_URL",
        Path(".env"): "PREFECT_API_URL",
        Path("prefect.toml"): "api",
        Path("pyproject.toml"): "tool.prefect",
    }
    try:
        found = [path for path, hint in hints.items() if path.is_file() and hint in path.read_text(errors="replace")]
    except OSError as error:
        raise SettingsError(
            f"{error.filename} may name a Prefect server, but can't be read: {error.strerror}."
        ) from error
    if not found:
        return None
    try:
        from prefect.settings import get_current_settings

        return get_current_settings().api.url
    except ValueError as error:
        raise SettingsError(f"Prefect's settings in {' or '.join(map(str, found))} are wrong: {error}") from error
