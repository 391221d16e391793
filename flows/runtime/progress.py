"""How far a run is, and who wants to know."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from darkroom.tasks.reporting.artifacts import create_progress, update_progress
from darkroom.tasks.reporting.text import clock

UI_SECONDS = 3.0
"""The progress bar in the UI moves this often."""

LAST_SECONDS = 5.0
"""The run's end waits so long for the bar's last move: there may be no server to take it."""


class Result(Protocol):
    """What came of a shard."""

    @property
    def number(self) -> int:
        """The shard's number."""

    @property
    def done(self) -> int:
        """Images done, failed ones included."""

    @property
    def failed(self) -> int:
        """Those of them that failed."""


@dataclass(slots=True)
class Progress:
    """How far a run is. Finished shards are counted by their results, running ones by what they tell."""

    images: int
    """Images to process in all."""

    failure: str = "failed"
    """What is said of an image with which something is wrong."""

    started: float = field(default_factory=time.monotonic)
    moves: int = 0
    """Goes up whenever a shard tells that it moves, or ends."""

    finished_done: int = 0
    finished_failed: int = 0
    running: dict[int, tuple[int, int]] = field(default_factory=dict)
    """By shard: images done, and those of them that failed."""

    def hear(self, message: dict[str, Any]) -> None:
        """Take in what a worker tells of a shard that it works on."""
        self.moves += 1
        self.running[message["shard"]] = (message["done"], message["failed"])

    def finish(self, result: Result) -> None:
        """Take in the result of a shard."""
        self.moves += 1
        self.running.pop(result.number, None)
        self.finished_done += result.done
        self.finished_failed += result.failed

    @property
    def done(self) -> int:
        """Images done, failed ones included."""
        return self.finished_done + sum(done for done, _ in list(self.running.values()))

    @property
    def failed(self) -> int:
        """Images that failed."""
        return self.finished_failed + sum(failed for _, failed in list(self.running.values()))

    @property
    def seconds(self) -> float:
        """Seconds since the first shard was handed out."""
        return time.monotonic() - self.started

    @property
    def rate(self) -> float:
        """Images per second."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the end at the present rate; None while there is none."""
        return (self.images - self.done) / self.rate if self.rate > 0 else None

    def describe(self) -> str:
        """Say in a line how far the run is."""
        left = f", {clock(self.seconds_left)} left" if self.seconds_left is not None else ""
        return f"{self.done:,} of {self.images:,} images, {self.rate:.1f}/s, {self.failed:,} {self.failure}{left}"


Watcher: TypeAlias = Callable[[Progress], None]

watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)
"""Who, beside Prefect, is told about progress: the command line sets it around its call of the flow."""


def ticker(progress: Progress, show: Watcher, *checks: Callable[[], None]) -> Callable[[], None]:
    """Return what is called all the time: it tells who wants to know how far the run is, and makes sure of things."""

    def tick() -> None:
        show(progress)
        for check in checks:
            check()

    return tick


@contextmanager
def shown(destination: str, kind: str = "progress") -> Iterator[Watcher]:
    """Provide what tells the watcher, and moves the progress bar on the flow run's page.

    It hardly waits for the server, and a server that can't be reached costs the bar, not the run.
    """
    context = copy_context()
    watch = watcher.get()
    sender = ThreadPoolExecutor(1, "progress")
    artifact = sender.submit(context.run, create_progress, destination, kind)
    sent: Future[Any] = artifact
    sent_at = time.monotonic()

    def send(progress: Progress) -> None:
        percent = 100 * progress.done / progress.images
        context.run(update_progress, artifact.result(), percent, progress.describe())

    def show(progress: Progress) -> None:
        nonlocal sent, sent_at
        if watch:
            watch(progress)
        last = progress.done == progress.images
        if last or (sent.done() and time.monotonic() - sent_at >= UI_SECONDS):
            sent_at = time.monotonic()
            sent = sender.submit(send, progress)

    try:
        yield show
    finally:
        wait([sent], LAST_SECONDS)
        sender.shutdown(wait=False, cancel_futures=True)
