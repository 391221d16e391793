"""The flow: list a source, plan shards, map the resize task over them, publish the manifest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from prefect import get_run_logger
from prefect.results import ResultRecord
from prefect.runtime import flow_run
from prefect.states import Completed, Failed, State

from flows.cluster import ShardFailure, dask_runner, local_workers, run_shards
from flows.progress import Progress, watcher
from flows.served import served_flow
from tasks.check import check_locations, check_recipe
from tasks.destination import Destination, Workspace
from tasks.discover import Listing, discover
from tasks.errors import DarkroomError, GuardError
from tasks.lease import HeldLease, hold_lease
from tasks.manifest import run_file
from tasks.plan import Plan, make_plan
from tasks.publish import publish
from tasks.recipe import Compute, Job, Recipe, Rules
from tasks.recover import close_workspace, recover
from tasks.report import RunReport, create_progress, publish_artifacts, read_figures, update_progress
from tasks.resize import ShardRef

EARLY_STOP_IMAGES = 200
"""When so many images have failed and none has come out, something else is wrong than the images."""

PROGRESS_ARTIFACT_SECONDS = 5.0


def _run_name() -> str:
    source = Path(str(flow_run.parameters["source"])).name
    return f"{source} {datetime.now(UTC):%Y-%m-%d %H:%M}"


@served_flow(name="preprocess", flow_run_name=_run_name)
def preprocess(
    source: str,
    destination: str,
    recipe: Recipe = Recipe(),  # noqa: B008 - frozen
    rules: Rules = Rules(),  # noqa: B008 - frozen
    compute: Compute = Compute(),  # noqa: B008 - frozen
) -> State[RunReport]:
    """Bring a destination up to date with a folder of images.

    Args:
        source: Folder of the images; nothing in it is ever written, moved or deleted.
        destination: Folder for the outputs, the manifest and the working state.
        recipe: What happens to the pixels.
        rules: What to work on, and when to stop.
        compute: Where the work is done.
    """
    try:
        report = _bring_up_to_date(source, destination, recipe, rules, compute)
    except DarkroomError as error:
        # As a state, not an exception: the message is what a user needs, a traceback isn't.
        return Failed(message=str(error))
    if report.problems:
        return Failed(message=" ".join(report.problems), data=report)
    return Completed(message=report.headline(), data=report)


def report_of(state: State[RunReport]) -> RunReport | None:
    """Return the report that an ended flow run came to, failed or not; None if it came to none."""
    data = state.data.result if isinstance(state.data, ResultRecord) else state.data
    return data if isinstance(data, RunReport) else None


def _bring_up_to_date(source: str, destination: str, recipe: Recipe, rules: Rules, compute: Compute) -> RunReport:
    started = time.monotonic()
    source_path, place = check_locations(source, destination)
    run_id = str(flow_run.id or uuid4())
    report = RunReport(source=str(source_path), destination=str(place.root), run_id=run_id)
    with hold_lease(place, run_id) as lease:
        report.adopted = recover(place).images
        check_recipe(place, recipe, rules)
        job = Job(
            run_id=run_id,
            source=str(source_path),
            destination=str(place.root),
            recipe=recipe,
            recipe_id=recipe.recipe_id,
            rules=rules,
            run_file=run_file(place, run_id),
        )
        with _workspace(place, job) as workspace:
            _run_job(workspace, job, compute, lease, report)
    report.seconds = time.monotonic() - started
    publish_artifacts(report)
    return report


def _run_job(workspace: Workspace, job: Job, compute: Compute, lease: HeldLease, report: RunReport) -> None:
    logger = get_run_logger()
    listing = discover(Path(job.source), workspace.listing, follow_symlinks=job.rules.follow_symlinks)
    plan = make_plan(workspace, job, listing, local_workers(compute))
    report.take_plan(listing, plan)
    logger.info(report.describe_plan(len(plan.shards)))
    check_guards(listing, plan, job.rules)
    if plan.nothing_to_do:
        return
    if plan.shards:
        _work(plan, job, compute, report)
    lease.check()
    publish(workspace, job, delete=True)
    read_figures(report, workspace, job)
    report.check_failures(job.rules.max_failure_ratio)


@contextmanager
def _workspace(place: Destination, job: Job) -> Iterator[Workspace]:
    """Provide the run's working folder; it stays only if it holds work that isn't published yet."""
    workspace = place.workspace(job.run_id)
    workspace.create()
    workspace.job.write_text(job.model_dump_json())
    published = False
    try:
        yield workspace
        published = True
    finally:
        if published or not workspace.journal_parts():
            close_workspace(workspace)


def check_guards(listing: Listing, plan: Plan, rules: Rules) -> None:
    """Stop a run that would destroy more than it should.

    Raises:
        GuardError: no image was found, or too many of the known ones are gone.
    """
    if not listing.images:
        skipped = ", ".join(f"{count} {reason}" for reason, count in sorted(listing.skipped.counts.items()))
        raise GuardError(
            f"The source holds no images (skipped: {skipped or 'nothing'}; in the manifest: {plan.known:,}). "
            "Nothing was changed. Is it mounted, and the right folder?"
        )
    if plan.deleted > rules.max_delete_ratio * plan.known:
        raise GuardError(
            f"{plan.deleted:,} of {plan.known:,} known images are gone from the source, which is more than "
            f"max_delete_ratio = {rules.max_delete_ratio:g} allows. Nothing was changed. If that is right, run "
            f"once with a max_delete_ratio of {plan.deleted / plan.known:.2g} or more."
        )


def _work(plan: Plan, job: Job, compute: Compute, report: RunReport) -> None:
    """Work through all shards, keeping everyone informed; what can't be done is noted in the report."""
    started = time.monotonic()
    progress = Progress(plan.images)
    shards = [
        ShardRef(
            destination=job.destination,
            run_id=job.run_id,
            number=shard.number,
            of=len(plan.shards),
            images=shard.images,
        )
        for shard in plan.shards
    ]
    try:
        with dask_runner(compute) as runner:
            for outcome in run_shards(runner, shards, progress.hear, _teller(job.destination, progress)):
                if isinstance(outcome, ShardFailure):
                    report.problems.append(f"{outcome.shard.label.capitalize()} could not be worked: {outcome.reason}")
                else:
                    progress.finish(outcome)
    except EarlyStopError as stop:
        report.problems.append(str(stop))
    report.work_seconds = time.monotonic() - started


class EarlyStopError(DarkroomError):
    """Every image fails."""


def _teller(destination: str, progress: Progress) -> Callable[[], None]:
    """Return what tells the watcher and the UI how far the run is, and ends a run in which all fails."""
    artifact = create_progress(destination)
    watch = watcher.get()
    told_at = time.monotonic()

    def tell() -> None:
        nonlocal told_at
        if watch:
            watch(progress)
        if time.monotonic() - told_at >= PROGRESS_ARTIFACT_SECONDS or progress.done == progress.images:
            told_at = time.monotonic()
            update_progress(artifact, 100 * progress.done / progress.images, progress.describe())
        if progress.done >= EARLY_STOP_IMAGES and progress.failed == progress.done:
            raise EarlyStopError(
                f"Stopped early: the first {progress.done:,} images all failed. See the failures for the reason."
            )

    return tell
