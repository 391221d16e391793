"""Adopt the work of runs that did not end."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import pyarrow as pa
from pydantic import ValidationError

from darkroom.tasks.dataset import sql
from darkroom.tasks.dataset.claim import let_attempts_end
from darkroom.tasks.dataset.integrity import is_whole
from darkroom.tasks.dataset.journal import whole_parts
from darkroom.tasks.dataset.layout import FINDINGS, MANIFEST, RUNS, WORK, Destination, Workspace
from darkroom.tasks.dataset.manifest import SCHEMA, read_info
from darkroom.tasks.errors import RETRIED_NEXT_RUN, DarkroomError, InvalidSettingError
from darkroom.tasks.publish import publish
from darkroom.tasks.settings import Job
from darkroom.tasks.storage.local_files import is_mine, is_temporary
from darkroom.tasks.storage.store import local_if_there
from darkroom.tasks.storage.store_errors import reading
from darkroom.tasks.unjournalled import remove_unjournalled


@dataclass(frozen=True, slots=True)
class Recovered:
    """The adopted work."""

    images: int = 0
    """Number of adopted images, without failed ones that are retried."""

    damaged_parts: int = 0
    """Number of journal parts that could not be read; their images are made again."""


def recover(destination: Destination) -> Recovered:
    """Publish the journals of unfinished runs, and remove their obsolete outputs and workspaces.

    Only the holder of the destination's lease may call this.
    """
    clear_verifications(destination)
    _remove_left_over(destination)
    images = damaged_parts = 0
    workspaces = destination.workspaces()
    for workspace in workspaces:
        found = workspace.journal_parts()
        parts = whole_parts(workspace.store, found)
        damaged_parts += len(found) - len(parts)
        # A run that died after publishing has left its journal: publishing it again changes nothing. A workspace
        # without a job was being removed.
        if parts and workspace.is_open():
            job = read_job(workspace)
            publish(workspace, job, ended=False)
            images += _finished(workspace, job)
        elif workspace.is_open():
            _retract(workspace)
        close_workspace(workspace)
    if workspaces:
        let_attempts_end(destination.store)
    return Recovered(images, damaged_parts)


_OF_EARLIER_VERSIONS = re.compile(r"\.+([^/]*\.parquet|lease\.json)(\.tmp|\.writing|\.rebuilt)+")
"""Names that earlier versions gave to temporary files."""


def _remove_left_over(destination: Destination) -> None:
    """Remove temporary files, except below `images/`, where planning does, and in workspaces, which are removed."""
    store = destination.store
    for folder in ("", f"{RUNS}/", f"{FINDINGS}/", f"{WORK}/"):
        for name in list(store.children(folder)):
            if is_temporary(name.removesuffix("/")) and not is_mine(name):
                store.delete_below(folder + name) if name.endswith("/") else store.delete([folder + name])
            elif _OF_EARLIER_VERSIONS.fullmatch(name):
                store.delete([folder + name])


def _finished(workspace: Workspace, job: Job) -> int:
    """Return the number of images of a published run that the next run does not retry."""
    retried = ", ".join(sql.text(code) for code in sorted(RETRIED_NEXT_RUN))
    with workspace.scratch() as scratch, sql.connect(scratch) as db:
        run = sql.parquet(workspace.store.local(f"{RUNS}/{job.run_file}", scratch))
        [(count,)] = db.execute(
            f"SELECT count(*) FROM {run} WHERE coalesce(error_code NOT IN ({retried}), true)"
        ).fetchall()
    return int(count)


def _retract(workspace: Workspace) -> None:
    """Remove the file of an interrupted run without images, unless the manifest names it."""
    with suppress(DarkroomError):  # even with a damaged job, a run without images is no loss
        job = read_job(workspace)
        manifest = read_info(workspace.destination)
        if manifest is None or manifest.run_file != job.run_file:
            workspace.store.delete([f"{RUNS}/{job.run_file}"])


def clear_verifications(destination: Destination) -> None:
    """Remove the workspaces of dead verifications; only the holder of the destination's lease may call this."""
    for workspace in destination.workspaces("verify"):
        workspace.remove()


def read_job(workspace: Workspace) -> Job:
    """Return the job of an unfinished run.

    Raises:
        SettingsError: this user may not read it.
        DarkroomError: it is damaged.
    """
    try:
        with reading():
            return workspace.load_job()
    except (ValidationError, InvalidSettingError) as error:
        job, folder = workspace.store.where(workspace.job), workspace.store.where(workspace.path)
        raise DarkroomError(
            f"{job} is damaged, so that the work of an interrupted run can't be adopted. Remove the folder {folder} to "
            "go on without it: its images are then made again. 'darkroom verify' finds the outputs it left behind."
        ) from error


def close_workspace(workspace: Workspace) -> None:
    """Remove the unjournalled and obsolete outputs of a run whose journal is published, and then its workspace.

    Raises:
        SettingsError: this user may not read an output.
        DarkroomError: unjournalled outputs may exist, and the job, which is needed to name them, is damaged.
    """
    begun = workspace.begun_shards()
    if begun and workspace.is_open():  # otherwise its removal has begun
        remove_unjournalled(workspace, read_job(workspace), begun)
    # If the list is damaged, its outputs become foreign files, which verifications find.
    if is_whole(workspace.store, workspace.obsolete):
        for batch in _obsolete(workspace):
            workspace.store.delete(batch.column(0).to_pylist())
    workspace.remove()


def _obsolete(workspace: Workspace) -> Iterator[pa.RecordBatch]:
    with workspace.scratch() as scratch, sql.connect(scratch) as db:
        sql.view(db, "manifest", [local_if_there(workspace.store, MANIFEST, scratch)], SCHEMA)
        noted = sql.parquet(workspace.store.local(workspace.obsolete, scratch))
        yield from sql.stream(db, f"SELECT file_name FROM {noted} ANTI JOIN manifest USING (file_name)", 65_536)
