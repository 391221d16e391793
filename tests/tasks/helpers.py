"""Builders for the tests of `tasks`: rows, workspaces, sources, whole small runs."""

import os
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from darkroom.tasks.dataset.claim import claim_shard
from darkroom.tasks.dataset.integrity import SEAL, sealed_writer
from darkroom.tasks.dataset.journal import Journal
from darkroom.tasks.dataset.manifest import run_file
from darkroom.tasks.dataset.rows import ManifestRow
from darkroom.tasks.discover import LISTING_SCHEMA, Listing, discover
from darkroom.tasks.plan import make_plan
from darkroom.tasks.publish import publish
from darkroom.tasks.recover import close_workspace
from darkroom.tasks.reporting.history import PastRun
from darkroom.tasks.settings import Job, Recipe, Rules
from darkroom.tasks.storage.locations import open_source
from darkroom.tasks.storage.naming import output_name
from darkroom.tasks.storage.store import Skipped
from tests.places import destination_at, disk

NOBODY = 65534
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
SMALL = Recipe(width=8, height=6)

SAME = (1000, NOON)
"""The size and time that images have in the rows of `row`."""


@contextmanager
def unprivileged():
    """Drop root's privileges until the block ends, so that file permissions count; other users stay as they are."""
    if os.getuid() != 0:
        yield
        return
    groups = os.getgroups()
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, 0)
    os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)
        os.setgroups(groups)


def after(seconds):
    """Return the time a number of seconds after noon."""
    return NOON + timedelta(seconds=seconds)


def row(path, *, recipe=SMALL, **columns):
    """Return a valid row of an image that has an output."""
    ok = {
        "source_path": path,
        "source_size": 1000,
        "source_mtime": NOON,
        "source_sha256": "5a" * 32,
        "source_format": "jpeg",
        "source_mode": "RGB",
        "source_width": 40,
        "source_height": 30,
        "orientation": 1,
        "frames": 1,
        "file_name": f"images/{output_name(path, recipe.format)}",
        "format": recipe.format,
        "width": recipe.width,
        "height": recipe.height,
        "channels": 3,
        "output_bytes": 10,
        "output_sha256": "0f" * 32,
        "scale_x": 0.2,
        "scale_y": 0.2,
        "offset_x": 0.0,
        "offset_y": 0.0,
        "status": "ok",
        "warnings": [],
        "attempts": 1,
        "read_ms": 1.0,
        "decode_ms": 2.0,
        "resize_ms": 3.0,
        "encode_ms": 4.0,
        "write_ms": 5.0,
        "run_id": "run",
        "shard": 0,
        "worker": "host/1",
        "recipe_id": recipe.recipe_id,
        "processed_at": NOON,
    }
    return ok | columns


def failed_row(path, code, **columns):
    """Return a valid row of an image that failed."""
    without = dict.fromkeys(("file_name", "format", "width", "height", "channels", "output_bytes", "output_sha256"))
    failure = {"status": "failed", "error_code": code, "error_stage": code.split(".")[0], "error_message": "no"}
    return row(path, **(without | failure | columns))


def past_run(run_id="run", **figures):
    """Return a past run: ten seconds of work, no images."""
    usual = {"started": NOON, "seconds": 12.0, "work_seconds": 10.0, "source_bytes": 2_000_000, "output_bytes": 10**6}
    counts = dict.fromkeys(("ok", "failed", "touched", "deleted"), 0)
    return PastRun(run_id, **({"interrupted": False} | usual | counts | figures))


def make_job(place, source="/source", *, run_id="run", recipe=SMALL, rules=None):
    return Job(
        run_id=run_id,
        source=str(source),
        destination=place.location,
        recipe=recipe,
        recipe_id=recipe.recipe_id,
        rules=rules or Rules(),
        run_file=run_file(place, run_id),
    )


def open_workspace(place, job):
    """Return the workspace of a run that has just begun."""
    workspace = place.workspace(job.run_id)
    workspace.begin(job)
    return workspace


def write_journal(workspace, rows, *, shard=0, attempt="001-1-1"):
    """Journal rows, and write an output of the right size for each that names one; the shard is not marked as begun."""
    for each in rows:
        if each["status"] == "ok" and each["file_name"]:
            write_output(workspace, each["file_name"], (b"0123456789" * each["output_bytes"])[: each["output_bytes"]])
    claim = claim_shard(workspace, shard, attempt)
    journal = Journal(claim)
    for each in rows:
        journal.add(ManifestRow(**each))
    journal.flush()
    if not claim.resumed:
        workspace.store.delete([f"{workspace.begun_folder(shard)}/{attempt}"])


def write_deleted(workspace, paths):
    table = pa.table({"source_path": pa.array(paths, pa.string())})
    with workspace.scratch() as scratch:
        with sealed_writer(scratch / "deleted.parquet", table.schema) as writer:
            writer.write_table(table)
        workspace.store.put_file(workspace.deleted, scratch / "deleted.parquet")


def write_listing(workspace, entries, unreadable=(), ctime=None):
    """Write a listing of `{path: (size, mtime)}`, in which all files have the same ctime."""
    columns = {
        "source_path": list(entries),
        "source_size": [size for size, _ in entries.values()],
        "source_mtime": [mtime for _, mtime in entries.values()],
        "source_ctime": [ctime] * len(entries),
        "source_etag": [None] * len(entries),
    }
    pq.write_table(pa.table(columns, schema=LISTING_SCHEMA), disk(workspace, "listing"))
    total = sum(size or 0 for size, _ in entries.values())
    return Listing(len(entries), total, Skipped(unreadable=list(unreadable)))


def convert_to_version_1(file):
    """Convert a manifest, run file or journal part to schema version 1, which had no `source_ctime`."""
    table = pq.read_table(file)
    metadata = {name: value for name, value in (table.schema.metadata or {}).items() if name != SEAL.encode()}
    table = table.drop_columns("source_ctime")
    with sealed_writer(file, table.schema.with_metadata(metadata | {b"schema_version": b"1"})) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({name.decode(): value.decode() for name, value in metadata.items()})
        writer.add_key_value_metadata({"schema_version": "1"})


def write_output(place, file_name, data=b"0123456789"):
    place.store.put(file_name, data)


def publish_run(place, rows=(), *, run_id="next", deleted=(), ended=True, recipe=SMALL):
    job = make_job(place, run_id=run_id, recipe=recipe)
    workspace = open_workspace(place, job)
    write_journal(workspace, [each | {"run_id": run_id} for each in rows])
    write_deleted(workspace, list(deleted))
    publish(workspace, job, ended=ended)
    return workspace, job


def paths_of(file):
    return pq.read_table(file)["source_path"].to_pylist()


def publish_rows(place, rows, *, run_id="run", source="/source", recipe=SMALL):
    """Publish rows as a run of their own, with an output for each that names one; return the job."""
    job = make_job(place, source, run_id=run_id, recipe=recipe)
    workspace = open_workspace(place, job)
    write_journal(workspace, [each | {"run_id": run_id} for each in rows])
    publish(workspace, job, ended=False)
    close_workspace(workspace)
    return job


def manifest_rows(place):
    with place.store.open("manifest.parquet") as file:
        return {each["source_path"]: each for each in pq.read_table(file).to_pylist()}


def journal_rows(workspace):
    return [each for part in parts_of(workspace) for each in pq.read_table(part).to_pylist()]


def parts_of(workspace, shard=None):
    """Return the local files of a journal, or of a shard's part of it."""
    return [Path(workspace.store.where(part)) for part in workspace.journal_parts(shard)]


def plan_rows(workspace):
    if not disk(workspace, "plan").exists():
        return {}
    return {each["source_path"]: each for each in pq.read_table(disk(workspace, "plan")).to_pylist()}


def write_image(path, width=40, height=30, seed=0, image_format="JPEG"):
    """Write an image of noise, different for every seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, image_format)


def prepare(source, place, *, run_id="run", recipe=SMALL, rules=None, workers=1):
    """Begin a run as the flow does: workspace, listing and plan."""
    job = make_job(place, source, run_id=run_id, recipe=recipe, rules=rules)
    workspace = open_workspace(place, job)
    listing = discover(open_source(str(source), job.rules), workspace, job.rules)
    return workspace, job, make_plan(workspace, job, listing, lambda: workers)


def plan_for(place, entries, *, unreadable=(), recipe=SMALL, workers=1, run_id="next", ctime=None, finished=0, **rules):
    """Plan a run of a listing `{path: (size, mtime)}`; return the plan, its rows by path, and the images to delete."""
    job = make_job(place, run_id=run_id, recipe=recipe, rules=Rules(**rules))
    workspace = open_workspace(place, job)
    listing = write_listing(workspace, entries, unreadable, ctime)
    plan = make_plan(workspace, job, listing, lambda: workers, finished)
    return plan, plan_rows(workspace), pq.read_table(disk(workspace, "deleted"))["source_path"].to_pylist()


def destination_in(folder):
    return destination_at(folder / "dest")


class Killed(BaseException):
    """Simulates the death of the process."""


class Killer:
    """Raises `Killed` instead of the n-th call of some functions of `os`.

    Args:
        patch: undoes the patches after the test.
        at: n, from 1.
        changes: the names of the functions.
    """

    def __init__(self, patch, at, *changes):
        self.left = at
        for name in changes:
            patch.setattr(os, name, self._guarded(getattr(os, name)))

    def _guarded(self, action):
        def act(*args, **kwargs):
            self.left -= 1
            if self.left == 0:
                raise Killed
            return action(*args, **kwargs)

        return act
