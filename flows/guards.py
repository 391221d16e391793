"""Guards: stop a run that would destroy more than it should, or in which everything fails."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from darkroom.flows.runtime.progress import Progress
from darkroom.tasks.discover import Listing
from darkroom.tasks.errors import GuardError
from darkroom.tasks.plan import Plan
from darkroom.tasks.reporting.skipped import describe_skipped, hints
from darkroom.tasks.reporting.text import sufficient_limit
from darkroom.tasks.settings import Job, Rules
from darkroom.tasks.storage.locations import is_list

EARLY_STOP_IMAGES = 200
"""When this many images have failed and none has succeeded, the cause is not the images."""


class EarlyStopError(GuardError):
    """Every image fails."""


def check_guards(listing: Listing, plan: Plan, job: Job) -> None:
    """Raise `GuardError` if no image was found, or if too many of the known images are gone."""
    if not listing.images:
        skipped, suffixes = listing.skipped.counts, listing.not_images
        described = describe_skipped(skipped, suffixes)
        skips = f" Skipped in it: {' '.join([described + '.', *hints(skipped, suffixes)])}" if described else ""
        question = (
            f"Does {job.source} name any?" if is_list(job.source) else f"Is {job.source} mounted, and the right one?"
        )
        known = f", while the manifest has {plan.known:,}" if plan.known else ""
        override = (
            " An empty source is never taken for the deletion of everything, whatever `max_delete_ratio` is: if that "
            f"is what you want, remove {job.destination} by hand."
        )
        raise GuardError(
            f"The source holds no images{known}. Nothing was deleted. {question}{skips}{override if known else ''}"
        )
    if plan.known and plan.gone / plan.known > job.rules.max_delete_ratio:
        left_out = (
            f"{plan.left_out:,} of them are left out by `include`, `exclude`, `by_content` or other rules of listing. "
            if plan.left_out
            else ""
        )
        raise GuardError(
            f"{plan.gone:,} of {plan.known:,} known images are no longer listed in the source, which is more than "
            f"`max_delete_ratio={job.rules.max_delete_ratio:g}` allows. Nothing was deleted. {left_out}"
            f"If {job.source} is complete and they may be deleted, run once with "
            f"`max_delete_ratio={sufficient_limit(plan.gone / plan.known)}`."
        )


def early_stop(progress: Progress[Any], rules: Rules, retried: int) -> Callable[[], None]:
    """Return a check that raises `EarlyStopError` once `EARLY_STOP_IMAGES` more than the retried ones all failed."""
    limit = EARLY_STOP_IMAGES + retried if rules.max_failure_ratio < 1 else math.inf

    def check() -> None:
        if progress.done >= limit and progress.failed == progress.done:
            raise EarlyStopError(
                f"Stopped early: the first {progress.done:,} of {progress.images:,} images all failed. A run stops "
                f"once {EARLY_STOP_IMAGES} have failed and none has succeeded, unless `max_failure_ratio=1` is set. "
                "Nothing was deleted, and former outputs are kept; the next run goes on with the rest."
            )

    return check
