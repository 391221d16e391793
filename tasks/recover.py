"""Adopt what runs that did not end have left behind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import pyarrow as pa
from pydantic import ValidationError

from darkroom.tasks.dataset import sql
from darkroom.tasks.dataset.integrity import damage
from darkroom.tasks.dataset.journal import whole_parts
from darkroom.tasks.dataset.layout import Destination, Workspace
from darkroom.tasks.dataset.manifest import SCHEMA, read_info
from darkroom.tasks.errors import RETRIED_NEXT_RUN, DarkroomError
from darkroom.tasks.publish import publish
from darkroom.tasks.settings import Job
from darkroom.tasks.storage.durable import reading
from darkroom.tasks.storage.local import LocalFolder


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was adopted."""

    runs: int = 0
    images: int = 0
    """Not those that failed for what may have passed by now: they are tried again."""

    damaged_parts: int = 0
    """Journal parts that could not be read; their images are made again."""


def recover(destination: Destination) -> Recovered:
    """Finish what unfinished runs began: publish their journals, remove outputs that are obsolete.

    Only the holder of the destination's lease may call this.
    """
    clear_verifications(destination)
    runs = images = damaged_parts = 0
    for workspace in destination.workspaces():
        found = workspace.journal_parts()
        parts = whole_parts(found)
        damaged_parts += len(found) - len(parts)
        # An interruption between a manifest's publication and the end of the run leaves a journal that
        # is published already; publishing it again changes nothing. Without its job, a working folder was
        # being removed.
        if parts and workspace.job.exists():
            job = read_job(workspace)
            publish(workspace, job, ended=False)
            images += _finished(workspace, job)
        elif workspace.job.exists():
            _retract(workspace)
        close_workspace(workspace)
        runs += 1
    return Recovered(runs, images, damaged_parts)


def _finished(workspace: Workspace, job: Job) -> int:
    """Return how many images a published run has done with."""
    retried = ", ".join(sql.text(code) for code in sorted(RETRIED_NEXT_RUN))
    told = sql.parquet(workspace.destination.runs / job.run_file)
    with sql.connect(workspace.root) as db:
        [(count,)] = db.execute(
            f"SELECT count(*) FROM {told} WHERE coalesce(error_code NOT IN ({retried}), true)"
        ).fetchall()
    return int(count)


def _retract(workspace: Workspace) -> None:
    """Remove the file of a run that was only to delete, and did not come to it."""
    with suppress(DarkroomError):  # a run without images may be lost, whatever is wrong with its job
        job = read_job(workspace)
        manifest = read_info(workspace.destination.manifest)
        if manifest is None or manifest.run_file != job.run_file:
            (workspace.destination.runs / job.run_file).unlink(missing_ok=True)


def clear_verifications(destination: Destination) -> None:
    """Remove what verifications that died have left; only the holder of the destination's lease may call this."""
    for workspace in destination.workspaces("verify"):
        shutil.rmtree(workspace.root, ignore_errors=True)


def read_job(workspace: Workspace) -> Job:
    """Return what an unfinished run was to do.

    Raises:
        SettingsError: this user may not read the file that says so.
        DarkroomError: it is damaged.
    """
    try:
        with reading():
            return Job.model_validate_json(workspace.job.read_bytes())
    except ValidationError as error:
        raise DarkroomError(
            f"{workspace.job} is damaged, so that the work of an interrupted run can't be adopted. Remove the folder "
            f"{workspace.root} to go on without it: its images are then made again."
        ) from error


def close_workspace(workspace: Workspace) -> None:
    """Remove the outputs that a published run made obsolete, and then its working folder."""
    # Without that list, what it names is foreign, which verifications find.
    if workspace.obsolete.exists() and not damage(workspace.obsolete):
        outputs = LocalFolder(os.fsencode(workspace.destination.root))
        for batch in _obsolete(workspace):
            for file_name in batch.column(0).to_pylist():
                outputs.delete(file_name)
    # By this, a worker elsewhere that is still at a shard knows that its run has ended. It may just be writing to the
    # folder: what it leaves, the next run removes.
    workspace.job.unlink(missing_ok=True)
    shutil.rmtree(workspace.root, ignore_errors=True)


def _obsolete(workspace: Workspace) -> Iterator[pa.RecordBatch]:
    with sql.connect(workspace.root) as db:
        sql.view_if_there(db, "manifest", workspace.destination.manifest, SCHEMA)
        query = f"FROM {sql.parquet(workspace.obsolete)} ANTI JOIN manifest USING (file_name)"
        yield from sql.stream(db, f"SELECT file_name {query}", 65_536)
