"""What the command line puts around a flow: a server, an early start of the workers, progress."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.flows.cli import terminal
from darkroom.flows.runtime.cluster import early_cluster, is_local, warm_up
from darkroom.flows.runtime.local_server import (
    LocalServer,
    check_api,
    light_tls,
    local_server,
    unwatched,
    without_password,
)
from darkroom.flows.runtime.signals import interruptible, sigterm_exits
from darkroom.tasks.errors import DarkroomError
from darkroom.tasks.settings import Compute

if TYPE_CHECKING:
    from prefect.states import State


class Session:
    """One flow run of the command line's, and what is started for it."""

    def __init__(self, compute: Compute, server: LocalServer | None, stack: ExitStack) -> None:
        self._compute = compute
        self._server = server
        self._stack = stack

    def start_cluster(self) -> None:
        """Start the cluster beside what else there is to do, for a flow that is sure to need it."""
        self._stack.enter_context(early_cluster(self._compute))

    def run(self, flow: Callable[[], State[Any]], interrupted: str) -> State[Any]:
        """Run a flow as soon as there is an API for it, showing its progress, and return the state in which it ended.

        Args:
            flow: calls the flow.
            interrupted: what to tell a user who interrupts it.
        """
        if self._server:
            self._server.wait_until_healthy()
            self._stack.enter_context(unwatched())
        else:
            check_api()
        if is_local(self._compute):
            self._stack.enter_context(light_tls())
        import httpx

        try:
            with terminal.shown_progress(), interruptible() as raise_again:
                state = flow()
                if not state.is_completed():
                    raise_again()
        except httpx.HTTPError as error:
            raise DarkroomError(
                f"The Prefect server was lost, so that the run's end could not be told ({error}). What it finished is "
                "kept: see that the server answers, and give the same command again."
            ) from error
        except (KeyboardInterrupt, SystemExit):
            terminal.error(interrupted)
            raise
        return state

    def page(self, run_id: str) -> str:
        """Say where the run's page is."""
        path = f"runs/flow-run/{run_id}"
        if self._server:
            prefect = os.path.relpath(Path(sys.executable).with_name("prefect"))
            return f"'{prefect} server start', then http://127.0.0.1:4200/{path}"
        from prefect.settings import get_current_settings

        return f"{without_password(str(get_current_settings().ui_url))}/{path}"


@contextmanager
def session(compute: Compute) -> Iterator[Session]:
    """Begin what takes time: server and workers go through their own imports while this process goes through its."""
    with sigterm_exits(), _server_if_needed() as server, ExitStack() as stack:
        if is_local(compute):
            warm_up()
        yield Session(compute, server, stack)


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
