"""The flow: list a source, plan shards, map the resize task over them, publish the manifest, report."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.runtime import flow_run
from prefect.states import State

from darkroom.flows.guards import EarlyStopError, check_guards, early_stop
from darkroom.flows.run import Run, absolute, publish_report
from darkroom.flows.runtime.cluster import worker_counter
from darkroom.flows.runtime.outcome import flow_with_api, run_name, run_reported, run_stage
from darkroom.flows.runtime.progress import Progress
from darkroom.flows.runtime.watchdog import Watchdog, stall_seconds
from darkroom.flows.runtime.window import map_shards
from darkroom.flows.runtime.workspace import hold_destination, open_workspace, preview_destination
from darkroom.tasks.dataset.layout import MANIFEST, Workspace
from darkroom.tasks.dataset.lease import HeldLease
from darkroom.tasks.dataset.manifest import run_file
from darkroom.tasks.dataset.shard import shard_refs
from darkroom.tasks.discover import Listing, discover
from darkroom.tasks.plan import Plan, make_plan
from darkroom.tasks.preflight import as_settings, check_compute, check_locations, check_manifest, check_recipe
from darkroom.tasks.publish import publish
from darkroom.tasks.recover import recover
from darkroom.tasks.reporting.figures import read_failures, read_figures
from darkroom.tasks.reporting.run_report import RunReport, describe_damage, failure_problems
from darkroom.tasks.reporting.text import printable
from darkroom.tasks.resize import ShardResult, resize_shard
from darkroom.tasks.settings import Compute, Job, Recipe, Rules
from darkroom.tasks.storage.locations import open_source
from darkroom.tasks.wording import counted
from darkroom.tasks.worker.codec_handle import start_server


def _check(source: Any, destination: Any, recipe: Any, rules: Any, compute: Any) -> None:
    as_settings(Recipe, recipe, "recipe")
    check_locations(source, destination, as_settings(Rules, rules, "rules"))
    check_compute(as_settings(Compute, compute, "compute"))


@flow_with_api(_check, name="preprocess", flow_run_name=run_name)
def preprocess(
    source: str,
    destination: str,
    recipe: Recipe = Recipe(),  # noqa: B008 - frozen
    rules: Rules = Rules(),  # noqa: B008 - frozen
    compute: Compute = Compute(),  # noqa: B008 - frozen
) -> State[RunReport]:
    """Bring a destination up to date with a folder of images.

    Args:
        source: Folder, bucket or list of the images; nothing in it is ever written, moved or deleted.
        destination: Folder or bucket for the outputs, the manifest and the working state.
        recipe: What happens to the pixels. Settings left out have their defaults, not the deployment's values.
        rules: What to work on, and when to stop.
        compute: Where the work is done.

    Returns:
        The run's report.

    Raises:
        RunFailedError: The run ended and counts as failed; has the report.
        DarkroomError: The run could not go on.
    """
    with ExitStack() as stack:
        if rules.limit:
            destination = stack.enter_context(preview_destination())
            rules, compute = rules.model_copy(update={"max_failure_ratio": 1}), Compute(workers=compute.workers)
        watchdog = stack.enter_context(Watchdog(stall_seconds(rules)))
        run = Run(absolute(source), absolute(destination), recipe, rules, compute)
        return run_reported(partial(_run_stages, run, watchdog), run.build_report, partial(publish_report, run))


def _run_stages(run: Run, watchdog: Watchdog) -> None:
    source, place = check_locations(run.source, run.destination, run.rules)
    check_compute(run.compute)
    workers = worker_counter(run.compute)
    with hold_destination(place, run.run_id) as lease:
        check_manifest(place)
        run.recovered = run_stage("adopt finished images", recover, place) if place.unfinished() else recover(place)
        if run.recovered.damaged_parts:
            get_run_logger().warning(describe_damage(run.recovered.damaged_parts))
        check_recipe(place, run.recipe, run.rules)
        run.job = job = Job(
            run_id=run.run_id,
            source=source,
            destination=place.location,
            recipe=run.recipe,
            recipe_id=run.recipe.recipe_id,
            rules=run.rules,
            run_file=run_file(place, run.run_id),
            started_at=run.started_at,
        )
        # A retry gets a new folder: workers of the former try may still be writing to theirs.
        name = job.run_id if (flow_run.run_count or 1) == 1 else f"{job.run_id}.{flow_run.run_count}"
        with open_workspace(place.workspace(name), job) as workspace:
            run.workspace = workspace
            plan = _list_and_plan(run, workspace, job, workers)
            if plan.shards:
                _resize(run, workspace, plan, lease, watchdog)
            if not plan.nothing_to_do:
                lease.check()
                run_stage("publish the manifest", _publish, run, workspace, job)
            known = run.figures.known if run.figures else plan.known
            failures = read_failures(place, job.run_id)
            run.problems += failure_problems(failures, known, run.rules.max_failure_ratio)


def _list_and_plan(run: Run, workspace: Workspace, job: Job, workers: Callable[[], int]) -> Plan:
    limit = run.rules.limit
    folder = printable(Path(job.source).name or job.source)
    name = f"list the first {counted(limit, 'image')} of {folder}" if limit else f"list {folder}"
    source = open_source(job.source, run.rules, job.destination)

    def list_source() -> Listing:
        run.listing = listing = discover(source, workspace, run.rules)
        get_run_logger().info(listing.describe())
        return listing

    listing = run_stage(name, list_source)

    def plan() -> Plan:
        run.plan = plan = make_plan(workspace, job, listing, workers, run.recovered.images)
        get_run_logger().info(plan.describe())
        check_guards(listing, plan, job)
        return plan

    return run_stage(f"plan {counted(listing.images, 'image')}", plan)


def _resize(run: Run, workspace: Workspace, plan: Plan, lease: HeldLease, watchdog: Watchdog) -> None:
    start_server()  # it imports meanwhile, and is ready when the contact sheets are drawn
    run.progress = progress = Progress[ShardResult](plan.images)
    shards = shard_refs(workspace, plan.shards)
    stop = early_stop(progress, run.rules, retried=plan.reasons.get("retry", 0))
    try:
        with watchdog.watch(progress):
            map_shards(resize_shard, shards, run.compute, progress, watchdog.check, lease.check_noted, stop)
    except EarlyStopError as reason:
        run.problems.append(str(reason))
        run.stopped = True


def _publish(run: Run, workspace: Workspace, job: Job) -> None:
    if run.stopped:
        workspace.mark_stopped()
    run.seconds = publish(workspace, job, ended=True, work_seconds=run.work_seconds).seconds
    run.figures = figures = read_figures(workspace, job)
    get_run_logger().info(f"Published {MANIFEST}: {counted(figures.known, 'row')}")
