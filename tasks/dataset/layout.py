"""The layout of a destination, as paths in its store."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import ValidationError

from darkroom.tasks.errors import InvalidSettingError
from darkroom.tasks.settings import Job
from darkroom.tasks.storage.bucket_checks import is_url
from darkroom.tasks.storage.locations import is_list, open_store
from darkroom.tasks.storage.naming import output_name
from darkroom.tasks.storage.store import ABSENT, Store, exists
from darkroom.tasks.storage.store_errors import Conflict, NotFound, reading

MANIFEST = "manifest.parquet"
"""The published state."""

IMAGES = "images"
"""The outputs."""

RUNS = "runs"
"""One Parquet file per run that attempted any image."""

FINDINGS = "findings"
"""One Parquet file per verification that found anything."""

WORK = ".darkroom"
"""Working state, only for Darkroom itself."""

QUARANTINE = f"{WORK}/quarantine"
"""Files that repairs moved out of `images/`, with a folder for each repair."""

WorkKind: TypeAlias = Literal["runs", "verify"]
"""The purpose of a workspace. The next run adopts that of a run, and removes that of a verification."""


def output_paths(job: Job) -> Callable[[str], str]:
    """Return a function that returns the path of a source image's output."""
    in_bucket, output_format = is_url(job.source) or is_list(job.source), job.recipe.format
    return lambda source_path: f"{IMAGES}/{output_name(source_path, output_format, in_bucket=in_bucket)}"


@dataclass(frozen=True, slots=True)
class Destination:
    """A destination; docs/README.md lists what it holds."""

    store: Store

    @property
    def location(self) -> str:
        """Its location, as users write it."""
        return self.store.location

    def workspace(self, run_id: str, kind: WorkKind = "runs") -> Workspace:
        """Return the workspace of one run."""
        return Workspace(self, run_id, kind)

    def workspaces(self, kind: WorkKind = "runs") -> list[Workspace]:
        """Return the existing workspaces, oldest first: those of runs that have not ended.

        Raises:
            SettingsError: this user may not list them, or a file is in the place of a folder.
        """
        with reading():
            names = [name[:-1] for name in self.store.children(f"{WORK}/{kind}") if name.endswith("/")]
        return sorted(
            (Workspace(self, name, kind) for name in names), key=lambda each: (each.started_at(), each.run_id)
        )

    def unfinished(self) -> list[Workspace]:
        """Return the workspaces whose work the next run adopts, oldest first.

        Raises:
            SettingsError: this user may not list them, or a file is in the place of a folder.
        """
        return [workspace for workspace in self.workspaces() if workspace.is_open()]

    def run_files(self) -> list[str]:
        """Return the paths of the files of `runs/`, sorted.

        Raises:
            SettingsError: this user may not list them, or `runs/` is no folder.
        """
        with reading():
            return sorted(f"{RUNS}/{name}" for name in self.store.children(RUNS) if name.endswith(".parquet"))


def open_destination(location: str) -> Destination:
    """Return the destination at a location, which need not exist yet.

    Raises:
        SettingsError: the location can't be a destination.
    """
    return Destination(open_store(location, outputs=IMAGES))


@dataclass(frozen=True, slots=True)
class Workspace:
    """The working state of one run, from its start until all its work is published."""

    destination: Destination
    run_id: str
    """The run's id; for a retry, with a dot and the number of the try."""

    kind: WorkKind = "runs"

    @property
    def store(self) -> Store:
        """The destination's store."""
        return self.destination.store

    @property
    def flow_run_id(self) -> str:
        """The flow run's id, the same for all its tries."""
        return self.run_id.partition(".")[0]

    @property
    def path(self) -> str:
        """Its folder."""
        return f"{WORK}/{self.kind}/{self.run_id}"

    @property
    def job(self) -> str:
        """The run's `darkroom.tasks.settings.Job` as JSON; empty for a verification."""
        return f"{self.path}/job.json"

    @property
    def listing(self) -> str:
        """The source's images."""
        return f"{self.path}/listing.parquet"

    @property
    def columns(self) -> str:
        """The further columns of a list of images or of archives, by source path; other sources have none."""
        return f"{self.path}/columns.parquet"

    @property
    def plan(self) -> str:
        """The images to process, or the outputs to read again; each row group is a shard."""
        return f"{self.path}/plan.parquet"

    @property
    def deleted(self) -> str:
        """The manifest's images that the source no longer has."""
        return f"{self.path}/deleted.parquet"

    @property
    def stopped(self) -> str:
        """Marker of a run that a guard stopped: a run that adopts it deletes and replaces nothing either."""
        return f"{self.path}/stopped"

    @property
    def obsolete(self) -> str:
        """The outputs that the manifest no longer names once it is published."""
        return f"{self.path}/obsolete.parquet"

    @property
    def journal(self) -> str:
        """Folder of the journal's parts."""
        return f"{self.path}/journal"

    @property
    def begun(self) -> str:
        """Folder with a folder of attempt markers for each begun shard."""
        return f"{self.path}/begun"

    def begun_folder(self, shard: int) -> str:
        """Return the folder of a shard's attempt markers, written before any of its outputs."""
        return f"{self.begun}/{shard:06d}"

    def journal_parts(self, shard: int | None = None) -> list[str]:
        """Return the paths of the journal's parts, of one shard or of all, sorted.

        Raises:
            SettingsError: this user may not list them.
        """
        prefix = "" if shard is None else f"{shard:06d}-"
        with reading():
            names = [name for name in self.store.children(self.journal) if name.endswith(".parquet")]
        return sorted(f"{self.journal}/{name}" for name in names if name.startswith(prefix))

    def begun_shards(self) -> list[int]:
        """Return the numbers of the shards whose outputs may have been written, sorted.

        Raises:
            SettingsError: this user may not list them.
        """
        with reading():
            names = [name.removesuffix("/") for name in self.store.children(self.begun)]
        return sorted(int(name) for name in names if name.isdigit())

    def begin(self, job: Job | None = None) -> None:
        """Create the workspace of a run, or, without a job, of a verification."""
        self.store.put(self.job, (job.model_dump_json() if job else "").encode(), expected=ABSENT, durable=True)

    def is_open(self) -> bool:
        """Return whether the run has not ended: its work is unpublished, or obsolete outputs are left.

        Raises:
            SettingsError: this user may not read the workspace.
        """
        with reading():
            return exists(self.store, self.job)

    def load_job(self) -> Job:
        """Return the run's job.

        Raises:
            StorageError: it can't be read, or is missing.
            ValidationError: it is damaged, or empty like that of a verification.
            InvalidSettingError: one of its values is damaged.
        """
        return Job.model_validate_json(bytes(self.store.get(self.job).data))

    def started_at(self) -> datetime:
        """Return when the run began, UTC, from its job; `datetime.min` without a readable job.

        Raises:
            SettingsError: this user may not read the job.
        """
        with suppress(NotFound, ValidationError, InvalidSettingError), reading():
            return self.load_job().started_at
        return datetime.min.replace(tzinfo=UTC)

    def mark_stopped(self) -> None:
        """Write the marker of a run that a guard has stopped."""
        with suppress(Conflict):  # it exists already
            self.store.put(self.stopped, b"", expected=ABSENT, durable=True)

    def remove(self) -> None:
        """Remove the workspace, so that workers that still process a shard find that the run has ended.

        If such a worker is just writing, the next run removes what it leaves.
        """
        self.store.delete([self.job])
        self.store.delete_below(self.begun)
        self.store.delete_below(self.path)

    def scratch(self) -> AbstractContextManager[Path]:
        """Provide a local folder for temporary files until the block ends."""
        return self.store.scratch(self.path)
