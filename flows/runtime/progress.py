"""The progress of a run, shown in the Prefect UI and on the command line."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from prefect import get_run_logger

from darkroom.tasks.reporting.artifacts import create_progress, update_progress
from darkroom.tasks.reporting.text import clock

UI_SECONDS = 3.0
"""Interval at which the progress bar in the UI moves."""

LAST_SECONDS = 5.0
"""How long a run's end waits for the last update of the bar: the server may be gone."""


class Result(Protocol):
    """The result of a shard."""

    @property
    def number(self) -> int:
        """The shard's number."""

    @property
    def done(self) -> int:
        """Images done, failed ones included."""

    @property
    def failed(self) -> int:
        """Images that failed."""


R = TypeVar("R", bound=Result)


@dataclass(slots=True)
class Progress(Generic[R]):
    """How far a run is: finished shards count by their results, running ones by their progress messages."""

    images: int
    """Images to process in all."""

    failure: str = "failed"
    """What to call images that are counted as failed."""

    artifact: str = "progress"
    """Kind of the artifact that shows progress in the UI."""

    started: float = field(default_factory=time.monotonic)
    ended: float | None = None
    events: int = 0
    """Number of progress messages and of shards that ended."""

    finished: list[R] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """Why shards were given up."""

    running: dict[int, tuple[int, int]] = field(default_factory=dict)
    """By shard: images done, and how many of these failed."""

    def on_message(self, message: dict[str, Any]) -> None:
        """Handle a worker's progress message."""
        self.events += 1
        self.running[message["shard"]] = (message["done"], message["failed"])

    def finish(self, result: R) -> None:
        """Record the result of a shard."""
        self.events += 1
        self.running.pop(result.number, None)
        self.finished.append(result)

    @property
    def done(self) -> int:
        """Images done, failed ones included."""
        return sum(result.done for result in self.finished) + sum(done for done, _ in list(self.running.values()))

    @property
    def failed(self) -> int:
        """Images that failed."""
        return sum(result.failed for result in self.finished) + sum(failed for _, failed in list(self.running.values()))

    @property
    def seconds(self) -> float:
        """Seconds in which shards ran."""
        return (self.ended or time.monotonic()) - self.started

    @property
    def rate(self) -> float:
        """Images per second."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the end at the present rate; None while the rate is zero."""
        return (self.images - self.done) / self.rate if self.rate > 0 else None

    def describe(self) -> str:
        """Return one line about how far the run is."""
        left = f", {clock(self.seconds_left)} left" if self.seconds_left is not None else ""
        return f"{self.done:,} of {self.images:,} images, {self.rate:,.1f}/s, {self.failed:,} {self.failure}{left}"


notice_listener: ContextVar[Callable[[str], None] | None] = ContextVar("notice_listener", default=None)
"""Called with each notice, beside Prefect; the command line sets it around its call of the flow."""


def notice(text: str) -> None:
    """Log what a run waits for or repeats, and show it with the progress."""
    get_run_logger().warning(text)
    if listener := notice_listener.get():
        listener(text)


Listener: TypeAlias = Callable[[Progress[Any]], None]

progress_listener: ContextVar[Listener | None] = ContextVar("progress_listener", default=None)
"""Called several times a second, beside Prefect; the command line sets it around its call of the flow."""


@contextmanager
def shown(progress: Progress[Any], destination: str) -> Iterator[Callable[[], None]]:
    """Provide a function that shows progress to the listener, and as a bar on the flow run's page.

    It never waits for the server; if the server is unreachable, only the bar is lost.
    """
    context = copy_context()
    listener = progress_listener.get()
    sender = ThreadPoolExecutor(1, "progress")
    artifact = sender.submit(context.run, create_progress, destination, progress.artifact)
    sent: Future[Any] = artifact
    sent_at = time.monotonic()

    def send() -> None:
        percent = 100 * progress.done / progress.images
        context.run(update_progress, artifact.result(), percent, progress.describe())

    def show() -> None:
        nonlocal sent, sent_at
        if listener:
            listener(progress)
        last = progress.done == progress.images
        if last or (sent.done() and time.monotonic() - sent_at >= UI_SECONDS):
            sent_at = time.monotonic()
            sent = sender.submit(send)

    try:
        yield show
    finally:
        wait([sent], LAST_SECONDS)
        sender.shutdown(wait=False, cancel_futures=True)
