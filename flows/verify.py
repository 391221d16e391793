"""The flow that checks outputs: survey and reread them, report the findings, repair."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import uuid4

from prefect.runtime import flow_run
from prefect.states import State

from darkroom.flows.run import absolute, summary_stored
from darkroom.flows.runtime.cluster import worker_counter
from darkroom.flows.runtime.outcome import RunFailedError, flow_with_api, run_name, run_reported, run_stage
from darkroom.flows.runtime.progress import Progress
from darkroom.flows.runtime.watchdog import STALL_SECONDS, Watchdog
from darkroom.flows.runtime.window import map_shards
from darkroom.flows.runtime.workspace import hold_destination, open_workspace
from darkroom.tasks.compare import VerifyResult, verify_shard
from darkroom.tasks.dataset.shard import shard_refs
from darkroom.tasks.preflight import as_settings, check_compute, check_kept_destination, check_sample
from darkroom.tasks.recover import clear_verifications
from darkroom.tasks.repair import Repaired
from darkroom.tasks.repair import repair as repair_outputs
from darkroom.tasks.reporting.artifacts import publish_markdown
from darkroom.tasks.reporting.findings import Findings, collect_findings
from darkroom.tasks.reporting.text import printable
from darkroom.tasks.reporting.verify_report import VerifyReport, findings_markdown, verify_markdown
from darkroom.tasks.settings import Compute
from darkroom.tasks.survey import Survey, check_settled, survey
from darkroom.tasks.wording import counted


def _check(destination: Any, sample: Any, compute: Any, **_others: Any) -> None:
    check_kept_destination(destination)
    check_sample(sample)
    check_compute(as_settings(Compute, compute, "compute"))


@flow_with_api(_check, name="verify", flow_run_name=partial(run_name, "verify "))
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
        sample: Fraction of the outputs to read again, above 0 and up to 1. Missing or foreign files and wrong sizes
            are found whatever the sample.
        repair: Move damaged and foreign files to a quarantine; the next run makes missing outputs again.
        compute: Where the work is done.
    """
    verification = Verification(absolute(destination), str(flow_run.id or uuid4()), sample, repair)
    with Watchdog(STALL_SECONDS) as watchdog:
        stages = partial(_run_stages, verification, compute, watchdog)
        return run_reported(stages, verification.build_report, _publish_report, VerifyFailedError)


class VerifyFailedError(RunFailedError):
    """The destination differs from its manifest; has the report."""


@dataclass(slots=True)
class Verification:
    """A verification's settings, and the results of its stages so far."""

    destination: str
    run_id: str
    sample: float = 1.0
    repair: bool = False
    started: float = field(default_factory=time.monotonic)
    rebuild_needed: bool = False
    survey: Survey | None = None
    progress: Progress[VerifyResult] = field(default_factory=lambda: Progress(0))
    findings: Findings | None = None
    repaired: Repaired | None = None

    def build_report(self, problem: str = "", interrupted: bool = False) -> VerifyReport:
        """Return the report; `problem` is why the stages ended early, if they did."""
        survey, progress, findings, repaired = self.survey, self.progress, self.findings, self.repaired
        problems = [*progress.failures, *filter(None, [problem])]
        if repaired and repaired.failed:
            reason = printable(repaired.problem)
            files = counted(repaired.failed, "file")
            problems.append(f"{files} could not be moved or removed, the first for this reason: {reason}.")
        return VerifyReport(
            destination=self.destination,
            run_id=self.run_id,
            interrupted=interrupted,
            seconds=time.monotonic() - self.started,
            work_seconds=progress.seconds if progress.images else 0.0,
            problems=tuple(problems),
            repair=self.repair,
            sample=self.sample,
            outputs=survey.outputs if survey else 0,
            reread=sum(result.done for result in progress.finished),
            bytes=sum(result.bytes for result in progress.finished),
            counts=findings.counts if findings else {},
            findings=findings.first if findings else (),
            findings_file=findings.file if findings else "",
            quarantine=repaired.quarantine if repaired and repaired.moved else "",
            moved=repaired.moved if repaired else 0,
            removed=repaired.removed if repaired else 0,
            unmoved=repaired.failed if repaired else 0,
            rebuild_needed=self.rebuild_needed,
        )


def _run_stages(verification: Verification, compute: Compute, watchdog: Watchdog) -> None:
    place = check_kept_destination(verification.destination)
    check_sample(verification.sample)
    check_compute(compute)
    workers = worker_counter(compute)
    with hold_destination(place, verification.run_id) as lease:
        clear_verifications(place)
        info = check_settled(place)
        verification.rebuild_needed = info.recipe_id != info.recipe.recipe_id
        with open_workspace(place.workspace(verification.run_id, "verify")) as workspace:
            verification.survey = found = run_stage(
                f"survey {counted(info.rows, 'row')} of the manifest", survey, workspace, verification.sample, workers
            )
            if found.shards:
                verification.progress = Progress(found.reread, "not as they should be", "verify-progress")
                shards = shard_refs(workspace, found.shards)
                with watchdog.watch(verification.progress):
                    map_shards(verify_shard, shards, compute, verification.progress, watchdog.check, lease.check_noted)
            # A run that took the lease over may have changed outputs while they were read.
            lease.check()
            verification.findings = collect_findings(workspace)
            if verification.findings and verification.repair:
                count = sum(verification.findings.counts.values())
                verification.repaired = run_stage(
                    f"repair {counted(count, 'finding')}", repair_outputs, workspace, verification.findings.file, lease
                )


def _publish_report(report: VerifyReport) -> VerifyReport:
    """Publish the report on the flow run's page, or log why not; return it."""
    with summary_stored(report.headline()):
        publish_markdown(report.destination, "verify", verify_markdown(report), report.headline())
        if report.findings:
            publish_markdown(report.destination, "verify-findings", findings_markdown(report), report.headline())
    return report
