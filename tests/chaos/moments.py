"""The moment of a kill: mostly while shards run, else while the run starts or ends."""

from __future__ import annotations

import random
import subprocess
import time
from dataclasses import dataclass
from typing import Literal, TypeAlias

from tests.chaos.places import Place

Phase: TypeAlias = Literal["start", "work", "journal", "end"]
"""A phase begins with the start of the process, the first output, the first part of the journal, or the last output."""

WORK_SHARE = 0.75
"""Share of moments while shards run; half of the others are before that, half after."""

NEARLY_ALL = 0.9
"""Kill at this share of the outputs at the latest: the run may be faster than the undisturbed one was."""

END_SECONDS = 240.0
"""How long a run may take, disturbed or not."""


@dataclass(frozen=True)
class Pace:
    """Seconds that an undisturbed run takes for each of its phases."""

    start: float
    work: float
    end: float

    @classmethod
    def measured(cls, run: subprocess.Popen[bytes], destination: Place) -> Pace:
        """Measure a run, which must have just been started, until it has ended."""
        started = time.time()
        wait_for("work", run, destination, 0)
        began = time.time()
        run.wait(END_SECONDS)
        ended = time.time()
        worked = max((output.mtime_ns / 1e9 for output in destination.outputs().values()), default=began)
        return cls(began - started, worked - began, ended - worked)


@dataclass(frozen=True)
class Moment:
    """A number of seconds after a phase has begun."""

    phase: Phase
    seconds: float = 0.0

    @classmethod
    def drawn(cls, chance: random.Random, pace: Pace) -> Moment:
        """Return a random moment."""
        if chance.random() < WORK_SHARE:
            return cls("work", chance.uniform(0, pace.work))
        if chance.random() < 0.5:
            return cls("start", chance.uniform(0.1, 1) * pace.start)
        return cls("end", chance.uniform(0, pace.end))

    def wait(self, run: subprocess.Popen[bytes], destination: Place, outputs: int) -> None:
        """Wait for this moment of a run that has just been started, or for the run's end."""
        wait_for(self.phase, run, destination, outputs)
        until = time.monotonic() + self.seconds
        while run.poll() is None and (left := until - time.monotonic()) > 0:
            if self.phase == "work" and destination.count_outputs() >= NEARLY_ALL * outputs:
                break
            time.sleep(min(left, destination.look_seconds))


def wait_for(phase: Phase, run: subprocess.Popen[bytes], destination: Place, outputs: int) -> None:
    """Wait until a phase of a run begins, the run ends, or `END_SECONDS` have passed."""
    deadline = time.monotonic() + END_SECONDS
    while run.poll() is None and not _has_begun(phase, destination, outputs) and time.monotonic() < deadline:
        time.sleep(destination.look_seconds)


def _has_begun(phase: Phase, destination: Place, outputs: int) -> bool:
    match phase:
        case "start":
            return True
        case "work":
            return destination.count_outputs() > 0
        case "journal":
            return destination.has_journal()
        case "end":
            return destination.count_outputs() == outputs
