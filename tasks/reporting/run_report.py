"""What a run did, and whether that is a failure."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from pydantic import BaseModel

from darkroom.tasks.discover import Listing
from darkroom.tasks.plan import Plan

PROBLEMS_TOLD = 5
"""Problems that a failed run's state message names; its summary has more of them."""

_FIRST_SENTENCE = re.compile(r"(.+?[.?!])\s+(?=[A-Z])", re.DOTALL)


class StageTimes(BaseModel):
    """Milliseconds that images spent in one stage."""

    stage: str
    p50: float
    p95: float
    max: float


class FailedImage(BaseModel):
    """An image that failed in a run."""

    source_path: str
    error_code: str
    error_message: str


class SlowImage(BaseModel):
    """An image that took long."""

    source_path: str
    ms: float
    source_bytes: int
    megapixels: float


class Failures(NamedTuple):
    """How the images came out in the end that a run has attempted, its own retries included."""

    attempted: int
    """Without those that failed again."""

    codes: dict[str, int]
    """How many of these failed, by code."""

    again: int = 0
    """How many failed that had failed in an earlier run, too."""


class Counted:
    """What follows from a run's counts."""

    ok: int
    failed: int
    touched: int
    work_seconds: float

    @property
    def attempted(self) -> int:
        """Images that the run worked on."""
        return self.ok + self.failed + self.touched

    @property
    def images_per_second(self) -> float:
        """Images worked on, per second of the time in which shards ran."""
        return self.attempted / self.work_seconds if self.work_seconds else 0.0


class RunReport(BaseModel, Counted):
    """What a run did."""

    source: str
    destination: str
    run_id: str
    seconds: float = 0.0
    work_seconds: float = 0.0
    planned: bool = False
    """Whether source and manifest were compared; without that, counts say nothing."""

    published: bool = False
    """Whether the run wrote a manifest; without that, nothing was deleted either."""

    stopped: bool = False
    """Whether a guard ended it before its time: then nothing was deleted, and no failure took an output's place."""

    ok: int = 0
    failed: int = 0
    touched: int = 0
    unchanged: int = 0
    deleted: int = 0
    adopted: int = 0
    damaged_parts: int = 0
    """Parts of interrupted runs' journals that could not be read; their images are made again."""

    reasons: dict[str, int] = {}
    skipped: dict[str, int] = {}
    unreadable_folders: list[str] = []
    known: int = 0
    known_failed: int = 0
    source_bytes: int = 0
    output_bytes: int = 0
    error_codes: dict[str, int] = {}
    stages: list[StageTimes] = []
    slowest: list[SlowImage] = []
    failures: list[FailedImage] = []
    problems: list[str] = []
    """Why the run counts as failed; empty if it doesn't."""

    def take_plan(self, listing: Listing, plan: Plan) -> None:
        """Fill in what was found and what is to be done."""
        self.planned = True
        self.unchanged = plan.unchanged
        self.deleted = plan.deleted
        self.known = plan.known
        self.known_failed = plan.known_failed
        self.reasons = plan.reasons
        self.skipped = dict(listing.skipped.counts)
        self.unreadable_folders = listing.skipped.unreadable

    def describe_plan(self, shards: int) -> str:
        """Say in a line what is to be done."""
        todo = ", ".join(f"{count:,} {reason}" for reason, count in self.reasons.items())
        return (
            f"{sum(self.reasons.values()):,} images to process ({todo or 'none'}) in {shards:,} shards; "
            f"{self.unchanged:,} unchanged, {self.deleted:,} to delete"
        )

    def describe_damage(self) -> str:
        """Say in a sentence what of an interrupted run's work was lost."""
        return f"{self.damaged_parts:,} journal part(s) of an interrupted run are damaged; their images are made again."

    def check_failures(self, failures: Failures, max_failure_ratio: float) -> None:
        """Note as a problem that more of the attempted images failed than may.

        Those that fail night after night, for want of a permission, say, are held against all that are known: else
        one of them would fail every night in which little else is to do.
        """
        codes = ", ".join(f"{count:,} × {code}" for code, count in failures.codes.items())
        for failed, of, what in (
            (sum(failures.codes.values()), failures.attempted, f"attempted images failed ({codes})"),
            (failures.again, self.known, "known images failed again, as in an earlier run"),
        ):
            if failed and failed / of > max_failure_ratio:
                self.problems.append(
                    f"{failed:,} of {of:,} {what}, which is more than max_failure_ratio = {max_failure_ratio:g} "
                    "allows. The manifest is published; its rows with status 'failed' tell each image's reason. If so "
                    f"many are to be expected, set a max_failure_ratio of {enough(failed / of)}."
                )

    def headline(self) -> str:
        """Say in a line what the run did."""
        if self.problems and not self.attempted:
            return "No image could be worked."
        if not self.attempted and not self.deleted:
            return f"Nothing to do: {self.unchanged:,} images unchanged."
        parts = [
            f"{self.ok:,} made",
            f"{self.failed:,} failed",
            f"{self.unchanged + self.touched:,} unchanged",
        ]
        if self.deleted and not self.stopped:
            moved = self.reasons.get("moved", 0)
            parts.append(f"{self.deleted:,} deleted" + (f" ({moved:,} of them moved)" if moved else ""))
        return ", ".join(parts)

    def title(self) -> str:
        """Say in a line what the run did or, if it failed, why."""
        return f"Failed: {first_sentence(self.problems[0])[0]}" if self.problems else self.headline()

    def failure(self) -> str:
        """Say why the run failed, each reason on a line of its own."""
        return "\n".join(first_problems(self.problems))


def first_problems(problems: list[str]) -> list[str]:
    """Return the problems that a state's message has room for, and how many more there are."""
    more = len(problems) - PROBLEMS_TOLD
    return problems[:PROBLEMS_TOLD] + ([f"And {more:,} more problems, which the summary lists."] if more > 0 else [])


def first_sentence(text: str) -> tuple[str, str]:
    """Return a text's first sentence, and what follows it."""
    match = _FIRST_SENTENCE.match(text)
    return (match[1], text[match.end() :]) if match else (text, "")


def enough(ratio: float) -> str:
    """Say what limit, in hundredths, would allow a ratio."""
    limit = math.ceil(100 * ratio) / 100
    return f"{limit:g} or more" if limit < 1 else "1"
