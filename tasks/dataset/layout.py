"""What lies where in a destination."""

from __future__ import annotations

import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from darkroom.tasks.storage.durable import reading

WorkKind: TypeAlias = Literal["runs", "verify"]
"""What a working folder is for: a run's is adopted by the next one, a verification's is only thrown away."""


@dataclass(frozen=True, slots=True)
class Destination:
    """The paths of a destination; see the README for what each holds."""

    root: Path

    @property
    def manifest(self) -> Path:
        """The published state."""
        return self.root / "manifest.parquet"

    @property
    def images(self) -> Path:
        """The outputs."""
        return self.root / "images"

    @property
    def runs(self) -> Path:
        """One Parquet file per run that attempted any image."""
        return self.root / "runs"

    @property
    def findings(self) -> Path:
        """One Parquet file per verification that found anything."""
        return self.root / "findings"

    @property
    def work(self) -> Path:
        """Working state, only for the tool."""
        return self.root / ".darkroom"

    @property
    def quarantine(self) -> Path:
        """What repairs have moved out of `images/`, a folder a repair."""
        return self.work / "quarantine"

    def workspace(self, run_id: str, kind: WorkKind = "runs") -> Workspace:
        """Return the working folder of one run."""
        return Workspace(self, run_id, kind)

    def workspaces(self, kind: WorkKind = "runs") -> list[Workspace]:
        """Return the working folders that exist, oldest first: those of runs that have not ended.

        Raises:
            SettingsError: this user may not list them, or there is a file in the place of their folder.
        """
        times: dict[str, int] = {}
        with reading():
            for path in _listed(self.work / kind):
                with suppress(FileNotFoundError):  # its run has just ended
                    status = path.stat()
                    if stat.S_ISDIR(status.st_mode):
                        times[path.name] = status.st_mtime_ns
        return [Workspace(self, name, kind) for name in sorted(times, key=lambda name: times[name])]

    def unfinished(self) -> list[Workspace]:
        """Return the working folders whose work the next run adopts, oldest first.

        One that doesn't say what its run was to do was being removed.

        Raises:
            SettingsError: this user may not look into them, or there is a file in the place of their folder.
        """
        with reading():
            return [workspace for workspace in self.workspaces() if workspace.job.exists()]

    def run_files(self) -> list[Path]:
        """Return the files of `runs/`, sorted by name.

        Raises:
            SettingsError: this user may not list them, or `runs/` is no folder.
        """
        with reading():
            return sorted(path for path in _listed(self.runs) if path.suffix == ".parquet")


@dataclass(frozen=True, slots=True)
class Workspace:
    """The working folder of one run: it exists from the run's start until all it did is published."""

    destination: Destination
    run_id: str
    """Of the run; if that is a retry, with a dot and which."""

    kind: WorkKind = "runs"

    @property
    def flow_run_id(self) -> str:
        """Of the run, whichever try of it this is of."""
        return self.run_id.partition(".")[0]

    @property
    def root(self) -> Path:
        """The folder itself."""
        return self.destination.work / self.kind / self.run_id

    @property
    def job(self) -> Path:
        """What the run is to do; JSON of `darkroom.tasks.settings.Job`."""
        return self.root / "job.json"

    @property
    def listing(self) -> Path:
        """The source's images."""
        return self.root / "listing.parquet"

    @property
    def outputs(self) -> Path:
        """The files below `images/` when the run started."""
        return self.root / "outputs.parquet"

    @property
    def plan(self) -> Path:
        """The images to process, or the outputs to read again; each row group is a shard."""
        return self.root / "plan.parquet"

    @property
    def deleted(self) -> Path:
        """The manifest's images that the source no longer has."""
        return self.root / "deleted.parquet"

    @property
    def stopped(self) -> Path:
        """There if a guard has stopped the run: what it is to leave alone, it is even if another finishes it."""
        return self.root / "stopped"

    @property
    def obsolete(self) -> Path:
        """The outputs that the manifest no longer names, once it is published."""
        return self.root / "obsolete.parquet"

    @property
    def journal(self) -> Path:
        """What is finished so far, in parts."""
        return self.root / "journal"

    def journal_parts(self, shard: int | None = None) -> list[Path]:
        """Return the finished journal parts, of one shard or of all.

        Raises:
            SettingsError: this user may not list them.
        """
        prefix = "" if shard is None else f"{shard:06d}-"
        with reading():
            parts = [path for path in _listed(self.journal) if path.suffix == ".parquet"]
        return sorted(path for path in parts if path.name.startswith(prefix))

    def create(self) -> None:
        """Make the folder."""
        self.journal.mkdir(parents=True, exist_ok=True)


def _listed(folder: Path) -> list[Path]:
    """Return what is in a folder, which need not be there: unlike `glob`, not nothing of one that can't be listed."""
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []
