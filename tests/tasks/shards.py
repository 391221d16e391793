"""Helpers for tests of whole shards; not in `helpers`, because they import Prefect."""

import hashlib
import os

import pytest
from PIL import Image

from darkroom.tasks import plan as plan_module
from darkroom.tasks.dataset.journal import Journal
from darkroom.tasks.dataset.shard import shard_refs
from darkroom.tasks.publish import publish
from darkroom.tasks.recover import close_workspace
from darkroom.tasks.resize import work_shard
from tests.contents import files
from tests.tasks.helpers import journal_rows, manifest_rows, prepare


def cut_small_shards(monkeypatch):
    """Give each worker several shards, however few and small its images are."""
    monkeypatch.setattr(plan_module, "SHARD_SECONDS", (1e-9, 1e-8))


def shard_of(place, plan, number=0, *, run_id="run", kind="runs", attempt=1):
    ref = shard_refs(place.workspace(run_id, kind), plan.shards)[number]
    return ref.model_copy(update={"attempt": attempt})


def work(source, place, **options):
    """Begin a run and process all its shards; return their rows by path, and the result of each shard."""
    workspace, _, plan = prepare(source, place, **options)
    results = list(map(work_shard, shard_refs(workspace, plan.shards)))
    return {row["source_path"]: row for row in journal_rows(workspace)}, results


def run(source, place, **options):
    """Do a whole run, up to its publication."""
    workspace, job, plan = prepare(source, place, **options)
    for ref in shard_refs(workspace, plan.shards):
        work_shard(ref)
    publish(workspace, job, ended=True)
    close_workspace(workspace)


class DiedError(BaseException):
    """Simulates the death of the process: the code for failed images does not catch it."""


def _die(*_):
    raise DiedError


def die_before_journalling(monkeypatch, source, place, **options):
    """Begin a run, and let it die after its first shard has written outputs, before any of them is journalled."""
    workspace, job, plan = prepare(source, place, **options)
    with monkeypatch.context() as patch, pytest.raises(DiedError):
        patch.setattr(Journal, "add", _die)
        work_shard(shard_of(place, plan, run_id=workspace.run_id))
    assert journal_rows(workspace) == []
    return workspace, job, plan


def write_flat(path, shade):
    """Write an image with a fixed mtime, whose size and whose output's size are the same for every shade."""
    write_bmp(path, shade)
    os.utime(path, ns=(0, 10**18))


def write_bmp(path, shade):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 12), (shade, shade, shade)).save(path, "BMP")


def wrong_outputs(place):
    """Return the outputs that differ from the manifest, that are missing, and that it doesn't name."""
    named = {row["file_name"]: row["output_sha256"] for row in manifest_rows(place).values() if row["file_name"]}
    found = {f"images/{name}": hashlib.sha256(data).hexdigest() for name, data in files(place.images).items()}
    return {name for name in named.keys() | found.keys() if named.get(name) != found.get(name)}
