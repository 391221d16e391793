"""Helpers for tests of verifying and repairing: whole small runs and verifications."""

import pyarrow as pa
import pyarrow.parquet as pq

from darkroom.flows.runtime.progress import Progress
from darkroom.flows.verify import Verification
from darkroom.tasks.compare import check_shard
from darkroom.tasks.dataset.manifest import SCHEMA, footer, write_table
from darkroom.tasks.dataset.shard import shard_refs
from darkroom.tasks.publish import publish
from darkroom.tasks.recover import close_workspace
from darkroom.tasks.reporting.findings import collect_findings
from darkroom.tasks.resize import work_shard
from darkroom.tasks.survey import survey
from tests.tasks.helpers import SMALL, make_job, prepare, write_image


def make(source, place, *, run_id="run", recipe=SMALL):
    """Do a whole run, and return how many images were processed for each reason."""
    workspace, job, plan = prepare(source, place, run_id=run_id, recipe=recipe)
    for ref in shard_refs(workspace, plan.shards):
        work_shard(ref)
    if not plan.nothing_to_do:
        publish(workspace, job, ended=True)
    close_workspace(workspace)
    return plan.reasons


def begin(place, *, sample=1.0, run_id="check", workers=1):
    """Begin a verification, up to its survey."""
    workspace = place.workspace(run_id, "verify")
    workspace.begin()
    return workspace, survey(workspace, sample, lambda: workers)


def read_again(workspace, found):
    return list(map(check_shard, shard_refs(workspace, found.shards)))


def verification(place, workspace, found, findings, results=(), repaired=None):
    """Return a verification whose stages have ended."""
    progress = Progress(found.reread, finished=list(results))
    known = {"survey": found, "progress": progress, "findings": findings, "repaired": repaired}
    return Verification(place.location, workspace.run_id, repair=repaired is not None, **known)


def verify(place, **options):
    """Verify; return the report, and the findings as {file or source: (kind, detail)}."""
    workspace, found = begin(place, **options)
    results = read_again(workspace, found)
    findings = collect_findings(workspace)
    report = verification(place, workspace, found, findings, results).build_report()
    rows = pq.read_table(place.path(findings.file)).to_pylist() if findings else []
    workspace.remove()
    names = [each["file_name"] or each["source_path"] for each in rows]
    assert len(set(names)) == len(names), "no file has two findings"
    assert sum(report.counts.values()) == len(rows)
    return report, {
        name.removeprefix("images/"): (each["kind"], each["detail"]) for name, each in zip(names, rows, strict=True)
    }


def kinds(found):
    return {name: kind for name, (kind, _) in found.items()}


def nine_images(source, place):
    """Return a destination of nine outputs, 0.jpg to 8.jpg."""
    for number in range(9):
        write_image(source / f"{number}.jpg", seed=number)
    make(source, place)
    return place


def put_manifest(place, rows):
    """Write a manifest of these rows, valid or not, in the order given."""
    metadata = footer(make_job(place))
    place.root.mkdir(exist_ok=True)
    write_table(place.manifest, iter([pa.RecordBatch.from_pylist(list(rows), SCHEMA)]), metadata)
