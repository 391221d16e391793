"""The flow that checks outputs: survey them, read them again on Dask workers, report and repair."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from uuid import uuid4

from prefect import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, State

from darkroom.flows.runtime.cluster import count_workers, dask_runner
from darkroom.flows.runtime.crashed import tell_dead
from darkroom.flows.runtime.progress import Progress, shown, ticker
from darkroom.flows.runtime.served import data_of, failed, run_name, served_flow
from darkroom.flows.runtime.signals import interruptible
from darkroom.flows.runtime.watchdog import ends_for_sure, watched
from darkroom.flows.runtime.window import ShardFailure, run_shards
from darkroom.tasks.compare import verify_shard
from darkroom.tasks.dataset.layout import Destination, Workspace
from darkroom.tasks.dataset.lease import HeldLease, hold_lease
from darkroom.tasks.dataset.shard import ShardRef, shard_refs
from darkroom.tasks.errors import DarkroomError
from darkroom.tasks.preflight import check_compute, check_kept_destination, check_sample
from darkroom.tasks.recover import clear_verifications
from darkroom.tasks.repair import repair as repair_outputs
from darkroom.tasks.reporting.verify_report import VerifyReport, publish_artifacts
from darkroom.tasks.settings import Compute
from darkroom.tasks.storage.store_errors import writing
from darkroom.tasks.survey import check_settled, survey


def _run_name() -> str:
    return run_name("verify ")


@served_flow(name="verify", flow_run_name=_run_name)
def verify(
    destination: str,
    sample: float = 1.0,
    repair: bool = False,
    compute: Compute = Compute(),  # noqa: B008 - frozen
) -> State[VerifyReport]:
    """Compare the outputs of a destination with its manifest.

    Without repair, nothing is changed.

    Args:
        destination: Folder that runs have written to.
        sample: Part of the outputs to read again, above 0 and up to 1. Whether outputs are there, have the right
            size, and are all that is there, is looked up for all.
        repair: Move damaged and foreign files to a quarantine, so that the next run makes again what is missing then.
        compute: Where the work is done.
    """
    try:
        with ends_for_sure(), interruptible():
            report = _compare(destination, sample, repair, compute)
    except DarkroomError as error:
        return failed(error)
    if not report.is_clean:
        return failed(VerifyFailedError(report))
    return Completed(message=report.headline(), data=report)


def report_of(state: State[VerifyReport]) -> VerifyReport | None:
    """Return the report that an ended flow run came to, failed or not; None if it came to none."""
    data = data_of(state)
    if isinstance(data, VerifyFailedError):
        return data.report
    return data if isinstance(data, VerifyReport) else None


class VerifyFailedError(DarkroomError):
    """A destination is not as its manifest says; says in what, and has the report of it."""

    def __init__(self, report: VerifyReport) -> None:
        super().__init__(report.failure())
        self.report = report


def _compare(destination: str, sample: float, repair: bool, compute: Compute) -> VerifyReport:
    started = time.monotonic()
    place = check_kept_destination(destination)
    check_sample(sample)
    check_compute(compute)
    workers = count_workers(compute)
    run_id = str(flow_run.id or uuid4())
    report = VerifyReport(destination=place.location, run_id=run_id, repair=repair, sample=sample)
    with writing(place.location), hold_lease(place, run_id) as lease:
        tell_dead(place, lease)
        clear_verifications(place)
        info = check_settled(place)
        report.rebuild_needed = info.recipe_id != info.recipe.recipe_id
        with _workspace(place, run_id) as workspace:
            found = survey(workspace, sample, workers)
            report.outputs = found.outputs
            if found.shards:
                shards = shard_refs(workspace, [shard.images for shard in found.shards])
                _read_again(shards, compute, lease, report)
            # Whoever took the lease over may have changed outputs while they were read.
            lease.check()
            findings = report.take_findings(workspace)
            if findings and repair:
                report.take_repair(repair_outputs(workspace, findings, lease))
    report.seconds = time.monotonic() - started
    try:
        publish_artifacts(report)
    except Exception:  # noqa: BLE001 - what was found was found, whether or not the server can be told
        get_run_logger().warning("The summary could not be stored.", exc_info=True)
    return report


@contextmanager
def _workspace(place: Destination, run_id: str) -> Iterator[Workspace]:
    """Provide the verification's working folder, in which nothing is ever worth keeping."""
    workspace = place.workspace(run_id, "verify")
    workspace.begin()
    try:
        yield workspace
    finally:
        # A worker elsewhere that is still at a shard may be writing to it: then the next run removes it.
        workspace.remove()


def _read_again(shards: Sequence[ShardRef], compute: Compute, lease: HeldLease, report: VerifyReport) -> None:
    """Work through all shards, keeping everyone informed; what can't be done is noted in the report."""
    progress = Progress(sum(shard.images for shard in shards), failure="not as they should be")
    with (
        dask_runner(compute) as runner,
        shown(report.destination, "verify-progress") as show,
        watched(progress) as watchdog,
    ):
        tick = ticker(progress, show, lease.check_noted, watchdog.check)
        for outcome in run_shards(runner, verify_shard, shards, progress.hear, tick):
            if isinstance(outcome, ShardFailure):
                report.problems.append(f"{outcome.shard.label.capitalize()} could not be verified: {outcome.reason}")
            else:
                progress.finish(outcome)
                report.reread += outcome.done
                report.bytes += outcome.bytes
        report.work_seconds = progress.seconds
