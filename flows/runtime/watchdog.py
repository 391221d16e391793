"""A run in which nothing moves any more ends, also if what hangs is in its way."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from datetime import UTC, datetime
from typing import NoReturn

from prefect.runtime import flow_run

from darkroom.flows.cli import terminal
from darkroom.flows.runtime.progress import Progress
from darkroom.tasks.errors import DarkroomError
from darkroom.tasks.settings import Rules
from darkroom.tasks.worker.codec import longest_seconds
from darkroom.tasks.worker.shared_batch import IMAGES

STALL_SECONDS = 1800.0
"""A run of which nothing has moved for so long hangs, unless its rules let one image take longer."""

END_SECONDS = 120.0
"""So long the end of a run that hangs may take. Then its process is ended by force."""

TELL_SECONDS = 30.0
"""By force, but not before Prefect had so long to take note."""

TICK_SECONDS = 0.5

_run_is_over: ContextVar[threading.Event | None] = ContextVar("run_is_over", default=None)


class StalledError(DarkroomError):
    """Nothing of a run moves any more."""


def patience(rules: Rules) -> float:
    """Return for how many seconds nothing of a run may move that doesn't hang.

    The longest that is allowed is a batch whose reads are given up one by one, and then the slowest image.
    """
    return max(STALL_SECONDS, (IMAGES + 1) * rules.max_read_seconds + longest_seconds(rules))


@contextmanager
def ends_for_sure() -> Iterator[None]:
    """Have a run end within `END_SECONDS` after a watchdog found that it hangs, even if that ends this process."""
    token = _run_is_over.set(over := threading.Event())
    try:
        yield
    finally:
        over.set()
        _run_is_over.reset(token)


@contextmanager
def watched(progress: Progress, seconds: float | None = None) -> Iterator[Watchdog]:
    """Watch in a thread that a run makes progress at least every so many seconds (`STALL_SECONDS`)."""
    dog = Watchdog(progress, STALL_SECONDS if seconds is None else seconds)
    try:
        yield dog
    finally:
        dog.stop()


class Watchdog:
    """Watches whether anything moves. It has a thread of its own: the run's may hang, too."""

    def __init__(self, progress: Progress, seconds: float) -> None:
        self._progress = progress
        self._seconds = seconds
        self._stalled = ""
        self._stopped = threading.Event()
        threading.Thread(target=copy_context().run, args=(self._watch,), name="watchdog", daemon=True).start()

    def check(self) -> None:
        """Make sure that the run does not hang; to be called all the time.

        Raises:
            StalledError: it does.
        """
        if self._stalled:
            raise StalledError(self._stalled)

    def stop(self) -> None:
        """Watch no longer. A run that was found to hang still has to end in time."""
        self._stopped.set()

    def _watch(self) -> None:
        moves, still, since = -1, 0.0, datetime.now(UTC)
        while not self._stopped.wait(TICK_SECONDS):
            # Counted in ticks: when all of this was stopped for an hour, the workers have not had an hour.
            still += TICK_SECONDS
            if moves != self._progress.moves:
                moves, still, since = self._progress.moves, 0.0, datetime.now(UTC)
            if still >= self._seconds:
                self._stalled = (
                    f"Nothing has moved since {since:%Y-%m-%d %H:%M:%S} UTC: no image was finished and no shard ended. "
                    "Storage or workers hang, or a cluster that is shared had no room. See that source and destination "
                    "answer on the workers' machines. What is finished is kept; the next run goes on from there."
                )
                self._see_to_the_end()
                return

    def _see_to_the_end(self) -> None:
        over = _run_is_over.get()
        if over and not over.wait(END_SECONDS):
            _end_by_force(f"{self._stalled} Its end hung, too, and was forced after {END_SECONDS:g} s.")


def _end_by_force(message: str) -> NoReturn:
    """End this process and all that it has started; nothing is asked that could hang."""
    import psutil

    terminal.error(message)
    told = threading.Thread(target=copy_context().run, args=(_tell_failed, message), daemon=True)
    told.start()
    told.join(TELL_SECONDS)
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()
    os._exit(terminal.EXIT_FAILED)


def _tell_failed(message: str) -> None:
    from prefect.client.orchestration import get_client
    from prefect.states import Failed

    with suppress(Exception), get_client(sync_client=True) as client:
        client.set_flow_run_state(flow_run.id, Failed(message=message), force=True)
