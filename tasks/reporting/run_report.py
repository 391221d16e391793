"""The report of a run of `preprocess`."""

from __future__ import annotations

from pydantic import Field

from darkroom.tasks.dataset.layout import MANIFEST, open_destination
from darkroom.tasks.reporting.failed_images import read_failed
from darkroom.tasks.reporting.figures import Counted, FailedImage, Failures, Figures
from darkroom.tasks.reporting.report import Report
from darkroom.tasks.reporting.text import count_codes, describe_nothing_to_do, first_sentence, sufficient_limit
from darkroom.tasks.wording import counted


class RunReport(Report, Figures, Counted):
    """What a run of `preprocess` did."""

    source: str
    preview: bool = False
    """Whether only the first images were processed, in a temporary destination."""

    pictures: tuple[str, ...] = ()
    """Paths of a preview's contact sheets."""

    planned: bool = False
    """Whether source and manifest were compared; if not, the counts are meaningless."""

    published: bool = False
    """Whether the run wrote a manifest; if not, nothing was deleted either."""

    stopped: bool = False
    """Whether the run stopped early; then nothing was deleted, and no failure replaced an output."""

    to_do: int = 0
    """Number of images that were planned."""

    kept: int = 0
    """Number of images that this run finished before it was interrupted; the next run adopts them."""

    unchanged: int = 0
    """Number of images that are still as an earlier run published them, by the plan."""

    deleted: int = 0
    adopted: int = 0
    """Number of images that an interrupted run had finished and that have not changed since."""

    damaged_parts: int = 0
    """Number of damaged journal parts of interrupted runs, whose images are made again."""

    reasons: dict[str, int] = Field({})
    """Number of images to process, by reason."""

    skipped: dict[str, int] = Field({})
    not_images: dict[str, int] = Field({})
    """Number of files that were skipped because they are not images, by suffix, the most frequent first."""

    unreadable_folders: tuple[str, ...] = ()

    @property
    def manifest(self) -> str:
        """Path or URL of the manifest."""
        return f"{self.destination}/{MANIFEST}"

    def __str__(self) -> str:
        """Return the headline, failures by error code, the manifest's location, and why the run failed."""
        codes = count_codes(self.error_codes)
        lines = [self.headline(), codes and f"failures: {codes}", f"manifest: {self.manifest}", self.failure()]
        return "\n".join(filter(None, lines))

    def failures(self) -> list[FailedImage]:
        """Return all failed images of the current manifest, sorted by path."""
        return list(read_failed(open_destination(self.destination)))

    @property
    def unchanged_now(self) -> int:
        """Number of images that an earlier run had published, and that this one found as they were."""
        return self.unchanged + self.touched

    @property
    def moved(self) -> int:
        """Number of images that were made at a new path, and are among those deleted at their former one."""
        return 0 if self.stopped else min(self.reasons.get("moved", 0), self.ok, self.deleted)

    def headline(self) -> str:
        """Return one line about what the run did."""
        if self.interrupted:
            return self._interrupted()
        if self.problems and not self.attempted:
            return "No image could be processed."
        if not self.attempted and not self.deleted:
            return f"{describe_nothing_to_do(self.adopted, self.unchanged_now)}."
        deleted = 0 if self.stopped else self.deleted - self.moved
        moved = f" ({self.moved:,} of them moved)" if self.moved else ""
        parts = [
            f"{'Preview: ' if self.preview else ''}{self.ok:,} made{moved}",
            f"{self.failed:,} failed",
            *([f"{self.adopted:,} adopted"] if self.adopted else []),
            f"{self.unchanged_now:,} unchanged",
            *([f"{deleted:,} deleted"] if deleted else []),
        ]
        return ", ".join(parts)

    def _interrupted(self) -> str:
        if self.published:
            return f"Stopped after the manifest was published: {self.ok:,} made, {self.failed:,} failed."
        kept = f"{self.kept:,} of {self.to_do:,} images are finished and kept" if self.to_do else "nothing was lost"
        return f"Stopped: {kept}. The next run, or a retry of this one, goes on from there."

    def title(self) -> str:
        """Return one line: what the run did, or why it failed."""
        return f"Failed: {first_sentence(self.problems[0])[0]}" if self.problems else self.headline()


def describe_damage(parts: int) -> str:
    """Return a sentence about the number of damaged journal parts of an interrupted run."""
    of = "its" if parts == 1 else "their"
    return f"{counted(parts, 'damaged journal part')} of an interrupted run can't be read: {of} images are made again."


def failure_problems(failures: Failures, known: int, max_failure_ratio: float) -> list[str]:
    """Return a sentence for each limit on failures that was exceeded.

    Images that failed in an earlier run, too, such as those without read permission, are compared with all known
    images: otherwise a single one would fail every run that has little else to do.
    """
    codes = count_codes(failures.codes)
    return [
        f"{failed:,} of {of:,} {what}, which is more than `max_failure_ratio={max_failure_ratio:g}` allows. The "
        "manifest is published; its rows with status 'failed' have each image's reason. If that many are expected, "
        f"set `max_failure_ratio={sufficient_limit(failed / of)}`."
        for failed, of, what in (
            (sum(failures.codes.values()), failures.attempted, f"attempted images failed ({codes})"),
            (failures.again, known, "known images failed again, as in an earlier run"),
        )
        if failed and failed / of > max_failure_ratio
    ]
