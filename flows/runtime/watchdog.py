"""End a run that makes no progress any more."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from logging import getLogger
from typing import Any, Self

from darkroom.flows.runtime.progress import Progress
from darkroom.flows.runtime.signals import exit_at_once
from darkroom.tasks.errors import DarkroomError
from darkroom.tasks.settings import Rules
from darkroom.tasks.worker.codec import longest_seconds
from darkroom.tasks.worker.shared_batch import BATCH_IMAGES

STALL_SECONDS = 1800.0
"""A run without progress for this long is stalled, unless its rules allow a batch more time."""

END_SECONDS = 120.0
"""A stalled run that has not ended after this long is killed: the cause of the stall may also block its end."""

TICK_SECONDS = 0.5

logger = getLogger(__name__)


class StalledError(DarkroomError):
    """A run makes no progress any more."""


def stall_seconds(rules: Rules) -> float:
    """Return after how many seconds without progress a run is stalled.

    A healthy run is quiet longest in a batch in which each read times out, followed by the slowest image.
    """
    return max(STALL_SECONDS, (BATCH_IMAGES + 1) * rules.max_read_seconds + longest_seconds(rules))


class Watchdog:
    """Watches the progress of a run from its own thread; enter it around the whole run.

    Args:
        seconds: a run without progress for this long is stalled.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._stalled = ""
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def check(self) -> None:
        """Raise `StalledError` if the run is stalled."""
        if self._stalled:
            raise StalledError(self._stalled)

    @contextmanager
    def watch(self, progress: Progress[Any]) -> Iterator[None]:
        """Watch progress until the block ends."""
        stopped = threading.Event()
        threading.Thread(target=self._watch, args=(progress, stopped), name="watchdog", daemon=True).start()
        try:
            yield
        finally:
            stopped.set()

    def _watch(self, progress: Progress[Any], stopped: threading.Event) -> None:
        events, idle, since = -1, 0.0, datetime.now(UTC)
        while idle < self._seconds:
            if stopped.wait(TICK_SECONDS):
                return
            # Counted in ticks, not by the clock: a suspended machine suspends the workers, too.
            idle += TICK_SECONDS
            if events != progress.events:
                events, idle, since = progress.events, 0.0, datetime.now(UTC)
        self._stalled = (
            f"No progress since {since:%Y-%m-%d %H:%M:%S} UTC: no image was finished and no shard ended. Storage "
            "or workers hang, or a shared cluster had no room. Make sure that source and destination answer on the "
            "workers' machines. What is finished is kept; the next run goes on from there."
        )
        if not self._ended.wait(END_SECONDS):
            logger.critical(
                "darkroom: %s The run did not end by itself either, and was killed after %g s.",
                self._stalled,
                END_SECONDS,
            )
            exit_at_once(1)
