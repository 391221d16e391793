"""The flow: list a source, plan shards, map the resize task over them, publish the manifest."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from uuid import uuid4

from prefect import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, State

from darkroom.flows.runtime.cluster import count_workers, dask_runner
from darkroom.flows.runtime.crashed import tell_dead
from darkroom.flows.runtime.progress import Progress, shown, ticker
from darkroom.flows.runtime.served import data_of, failed, run_name, served_flow
from darkroom.flows.runtime.signals import interruptible
from darkroom.flows.runtime.watchdog import ends_for_sure, patience, watched
from darkroom.flows.runtime.window import ShardFailure, run_shards
from darkroom.tasks.dataset.layout import Destination, Workspace, open_destination
from darkroom.tasks.dataset.lease import HeldLease, hold_lease
from darkroom.tasks.dataset.manifest import run_file
from darkroom.tasks.dataset.shard import ShardRef, shard_refs
from darkroom.tasks.discover import Listing, discover
from darkroom.tasks.errors import DarkroomError, GuardError, SettingsError
from darkroom.tasks.plan import Plan, make_plan
from darkroom.tasks.preflight import check_compute, check_locations, check_manifest, check_recipe
from darkroom.tasks.publish import publish
from darkroom.tasks.recover import close_workspace, recover
from darkroom.tasks.reporting.artifacts import publish_artifacts
from darkroom.tasks.reporting.contact_sheet import ContactSheets, make_contact_sheets
from darkroom.tasks.reporting.figures import read_failures, read_figures
from darkroom.tasks.reporting.history import History, read_history
from darkroom.tasks.reporting.run_report import RunReport, enough
from darkroom.tasks.resize import resize_shard
from darkroom.tasks.settings import Compute, Job, Recipe, Rules
from darkroom.tasks.storage.locations import absolute, open_source
from darkroom.tasks.storage.store_errors import writing
from darkroom.tasks.worker.codec_handle import start_server

EARLY_STOP_IMAGES = 200
"""When so many images have failed and none has come out, something else is wrong than the images."""


@served_flow(name="preprocess", flow_run_name=run_name)
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
    report = RunReport(source=_absolute(source), destination=_absolute(destination), run_id=str(flow_run.id or uuid4()))
    with ends_for_sure():
        try:
            with interruptible():
                sheets = _bring_up_to_date(report, recipe, rules, compute)
        except DarkroomError as error:
            report.problems.append(str(error))
            _tell(report)
            return failed(DarkroomError(report.failure()))
        except Exception as error:
            report.problems.append(f"Unexpected {type(error).__name__}: {error}")
            _tell(report)
            raise
        _tell(report, sheets)
    if report.problems:
        return failed(RunFailedError(report))
    return Completed(message=report.headline(), data=report)


def report_of(state: State[RunReport]) -> RunReport | None:
    """Return the report that an ended flow run came to, failed or not; None if it came to none."""
    data = data_of(state)
    if isinstance(data, RunFailedError):
        return data.report
    return data if isinstance(data, RunReport) else None


class RunFailedError(DarkroomError):
    """A run came to its end and counts as failed; says why, and has the report of what it did."""

    def __init__(self, report: RunReport) -> None:
        super().__init__(report.failure())
        self.report = report


def _absolute(location: str) -> str:
    """Return the path that a setting names, if it names one."""
    try:
        return absolute(location, "")
    except SettingsError:
        return location


def _tell(report: RunReport, sheets: ContactSheets = ContactSheets()) -> None:  # noqa: B008 - frozen
    """Put on the flow run's page what came of it; that it can't be told changes nothing of it."""
    history = History()
    try:
        with suppress(SettingsError):  # it may be what the run has failed for
            history = read_history(open_destination(report.destination))
        publish_artifacts(report, sheets, history)
    except Exception:  # noqa: BLE001 - what is published is published, whether or not the server can be told
        get_run_logger().warning("The summary could not be stored.", exc_info=True)


def _bring_up_to_date(report: RunReport, recipe: Recipe, rules: Rules, compute: Compute) -> ContactSheets:
    started, started_at = time.monotonic(), datetime.now(UTC)
    source_location, place = check_locations(report.source, report.destination)
    check_compute(compute)
    workers = count_workers(compute)
    sheets = ContactSheets()
    with writing(place.location), hold_lease(place, report.run_id) as lease:
        check_manifest(place)
        tell_dead(place, lease)
        recovered = recover(place)
        report.adopted, report.damaged_parts = recovered.images, recovered.damaged_parts
        if recovered.damaged_parts:
            get_run_logger().warning(report.describe_damage())
        check_recipe(place, recipe, rules)
        job = Job(
            run_id=report.run_id,
            source=source_location,
            destination=place.location,
            recipe=recipe,
            recipe_id=recipe.recipe_id,
            rules=rules,
            run_file=run_file(place, report.run_id),
            started_at=started_at,
        )
        with _workspace(place, job) as workspace:
            plan = _look(workspace, job, workers, report)
            if plan.shards:
                shards = shard_refs(workspace, [shard.images for shard in plan.shards])
                _work(shards, job, compute, lease, report)
            if not plan.nothing_to_do:
                lease.check()
                if report.stopped:
                    workspace.mark_stopped()
                publish(workspace, job, ended=True, work_seconds=report.work_seconds)
                read_figures(report, workspace, job)
                sheets = _contact_sheets(workspace, job)
            report.check_failures(read_failures(place, report.run_id), rules.max_failure_ratio)
    report.seconds = time.monotonic() - started
    return sheets


def _contact_sheets(workspace: Workspace, job: Job) -> ContactSheets:
    try:
        return make_contact_sheets(workspace, job)
    except Exception:  # noqa: BLE001 - a picture is not worth a run
        get_run_logger().warning("The contact sheet could not be made.", exc_info=True)
        return ContactSheets()


def _look(workspace: Workspace, job: Job, workers: int, report: RunReport) -> Plan:
    """Find out what is to be done, and make sure that it should be."""
    source = open_source(job.source, follow_symlinks=job.rules.follow_symlinks, destination=job.destination)
    listing = discover(source, workspace)
    plan = make_plan(workspace, job, listing, workers)
    report.take_plan(listing, plan)
    get_run_logger().info(report.describe_plan(len(plan.shards)))
    check_guards(listing, plan, job)
    return plan


@contextmanager
def _workspace(place: Destination, job: Job) -> Iterator[Workspace]:
    """Provide the run's working folder; it stays only if it holds work that isn't published yet."""
    # A retry has a folder of its own: workers of the try before it may still be at their shards.
    tries = flow_run.run_count or 1
    workspace = place.workspace(job.run_id if tries == 1 else f"{job.run_id}.{tries}")
    workspace.begin(job)
    published = False
    try:
        yield workspace
        published = True
    finally:
        if published or not workspace.begun_shards():
            close_workspace(workspace)


def check_guards(listing: Listing, plan: Plan, job: Job) -> None:
    """Stop a run that would destroy more than it should.

    Raises:
        GuardError: no image was found, or too many of the known ones are gone.
    """
    if not listing.images:
        skipped = (f"{count:,} {why.replace('_', ' ')}" for why, count in sorted(listing.skipped.counts.items()))
        known = f", while the manifest has {plan.known:,}" if plan.known else ""
        override = (
            " An empty source is never taken for the deletion of everything, whatever max_delete_ratio is: if that is "
            f"what you want, remove {job.destination} by hand."
        )
        raise GuardError(
            f"The source holds no images{known}. Nothing was deleted. Is {job.source} mounted, and the right folder? "
            f"Skipped in it: {', '.join(skipped) or 'nothing'}.{override if known else ''}"
        )
    if plan.known and plan.gone / plan.known > job.rules.max_delete_ratio:
        raise GuardError(
            f"{plan.gone:,} of {plan.known:,} known images are gone from the source, which is more than "
            f"max_delete_ratio = {job.rules.max_delete_ratio:g} allows. Nothing was deleted. If {job.source} is "
            f"complete and they may be deleted, run once with a max_delete_ratio of "
            f"{enough(plan.gone / plan.known)}."
        )


def _work(shards: Sequence[ShardRef], job: Job, compute: Compute, lease: HeldLease, report: RunReport) -> None:
    """Work through all shards, keeping everyone informed; what can't be done is noted in the report."""
    start_server()  # so that it is ready when the contact sheets are drawn
    progress = Progress(sum(shard.images for shard in shards))
    with (
        dask_runner(compute) as runner,
        shown(job.destination) as show,
        watched(progress, patience(job.rules)) as watchdog,
    ):
        early_stop = _early_stop(progress, job.rules, retried=report.reasons.get("retry", 0))
        checks = (lease.check_noted, watchdog.check, early_stop)
        try:
            for outcome in run_shards(runner, resize_shard, shards, progress.hear, ticker(progress, show, *checks)):
                if isinstance(outcome, ShardFailure):
                    report.problems.append(f"{outcome.shard.label.capitalize()} could not be worked: {outcome.reason}")
                else:
                    progress.finish(outcome)
        except EarlyStopError as stop:
            report.problems.append(str(stop))
            report.stopped = True
        report.work_seconds = progress.seconds


class EarlyStopError(DarkroomError):
    """Every image fails."""


def _early_stop(progress: Progress, rules: Rules, retried: int) -> Callable[[], None]:
    """Return what ends a run in which all fails, also what had not failed before."""
    limit = EARLY_STOP_IMAGES + retried if rules.max_failure_ratio < 1 else math.inf

    def check() -> None:
        if progress.done >= limit and progress.failed == progress.done:
            raise EarlyStopError(
                f"Stopped early: the first {progress.done:,} of {progress.images:,} images all failed. A run stops "
                f"once {EARLY_STOP_IMAGES} have failed and none has come out, unless max_failure_ratio is 1. Nothing "
                "was deleted, and what was there before is kept; the next run goes on with the rest."
            )

    return check
