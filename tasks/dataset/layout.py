"""What lies where in a destination, as paths in its store."""

from __future__ import annotations

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
"""Working state, only for the tool."""

QUARANTINE = f"{WORK}/quarantine"
"""What repairs have moved out of `images/`, a folder a repair."""

WorkKind: TypeAlias = Literal["runs", "verify"]
"""What a workspace is for: a run's is adopted by the next run, a verification's is only removed."""


def output_path(source_path: str, job: Job) -> str:
    """Return where the output of a source image is."""
    in_bucket = is_url(job.source) or is_list(job.source)
    return f"{IMAGES}/{output_name(source_path, job.recipe.format, in_bucket=in_bucket)}"


@dataclass(frozen=True, slots=True)
class Destination:
    """A destination; docs/README.md lists what it holds."""

    store: Store

    @property
    def location(self) -> str:
        """Where it is, as users write it."""
        return self.store.location

    def workspace(self, run_id: str, kind: WorkKind = "runs") -> Workspace:
        """Return the workspace of one run."""
        return Workspace(self, run_id, kind)

    def workspaces(self, kind: WorkKind = "runs") -> list[Workspace]:
        """Return the workspaces that exist, oldest first: those of runs that have not ended.

        Raises:
            SettingsError: this user may not list them, or there is a file in the place of a folder.
        """
        with reading():
            names = [name[:-1] for name in self.store.children(f"{WORK}/{kind}") if name.endswith("/")]
        return sorted(
            (Workspace(self, name, kind) for name in names), key=lambda each: (each.started_at(), each.run_id)
        )

    def unfinished(self) -> list[Workspace]:
        """Return the workspaces whose work the next run adopts, oldest first.

        Raises:
            SettingsError: this user may not look into them, or there is a file in the place of a folder.
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
        SettingsError: no destination can be there.
    """
    return Destination(open_store(location, outputs=IMAGES))


@dataclass(frozen=True, slots=True)
class Workspace:
    """The working state of one run: it exists from the run's start until all it did is published."""

    destination: Destination
    run_id: str
    """Of the run; if that is a retry, with a dot and which."""

    kind: WorkKind = "runs"

    @property
    def store(self) -> Store:
        """The destination's store."""
        return self.destination.store

    @property
    def flow_run_id(self) -> str:
        """Of the run, whichever of its tries this is of."""
        return self.run_id.partition(".")[0]

    @property
    def path(self) -> str:
        """The prefix of all that belongs to it."""
        return f"{WORK}/{self.kind}/{self.run_id}"

    @property
    def job(self) -> str:
        """What the run is to do, as JSON of `darkroom.tasks.settings.Job`; empty for a verification."""
        return f"{self.path}/job.json"

    @property
    def listing(self) -> str:
        """The source's images."""
        return f"{self.path}/listing.parquet"

    @property
    def columns(self) -> str:
        """The further columns of a list of images, by source path; there is none for another source."""
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
        """Exists if a guard has stopped the run: then a run that adopts it deletes and replaces nothing either."""
        return f"{self.path}/stopped"

    @property
    def obsolete(self) -> str:
        """The outputs that the manifest no longer names, once it is published."""
        return f"{self.path}/obsolete.parquet"

    @property
    def journal(self) -> str:
        """What is finished so far, in parts."""
        return f"{self.path}/journal"

    @property
    def begun(self) -> str:
        """A folder for each shard of which outputs may have been written, with the names of its attempts."""
        return f"{self.path}/begun"

    def begun_folder(self, shard: int) -> str:
        """Return the folder that exists once outputs of a shard may have been written."""
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
        """Return the numbers of the shards of which outputs may have been written, sorted.

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
        """Return whether the run has not ended: its work is not published yet, or what that makes obsolete is there.

        Raises:
            SettingsError: this user may not look.
        """
        with reading():
            return exists(self.store, self.job)

    def load_job(self) -> Job:
        """Return what the run is to do.

        Raises:
            StorageError: it can't be read, or there is none.
            ValidationError: it is damaged, or empty as that of a verification.
            InvalidSettingError: it is damaged in a value.
        """
        return Job.model_validate_json(bytes(self.store.get(self.job).data))

    def started_at(self) -> datetime:
        """Return when the run began, UTC, as its job says; the earliest time there is if it doesn't.

        Raises:
            SettingsError: this user may not read that.
        """
        with suppress(NotFound, ValidationError, InvalidSettingError), reading():
            return self.load_job().started_at
        return datetime.min.replace(tzinfo=UTC)

    def mark_stopped(self) -> None:
        """Note that a guard has stopped the run."""
        with suppress(Conflict):  # that is noted already
            self.store.put(self.stopped, b"", expected=ABSENT, durable=True)

    def remove(self) -> None:
        """Remove the workspace. A worker that is still at a shard knows by this that its run has ended.

        It may just be writing: what it leaves, the next run removes.
        """
        self.store.delete([self.job])
        self.store.delete_below(self.begun)
        self.store.delete_below(self.path)

    def scratch(self) -> AbstractContextManager[Path]:
        """Provide a local folder for tables in the making until the block ends."""
        return self.store.scratch(self.path)
