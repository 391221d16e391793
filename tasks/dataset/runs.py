"""Find the newest run from the files' contents, as copying or restoring a destination changes file times."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow.parquet as pq

from darkroom.tasks.dataset.layout import RUNS, Destination
from darkroom.tasks.dataset.manifest import ManifestInfo, read_record
from darkroom.tasks.errors import DarkroomError, SettingsError
from darkroom.tasks.storage.store import Store, exists


@dataclass(frozen=True, slots=True)
class RunFiles:
    """The paths of the files below `runs/`."""

    newest_first: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    """Those whose footers are damaged, or were written by another version of Darkroom."""

    denied: tuple[str, ...] = ()
    """Those that this user may not read."""


def newest_run(destination: Destination, info: ManifestInfo) -> str | None:
    """Return the path of the newest run's file, which the manifest's `info` names; None if no run has left one.

    Raises:
        SettingsError: this user may not list `runs/`.
    """
    if info.run_file and exists(destination.store, f"{RUNS}/{info.run_file}"):
        return f"{RUNS}/{info.run_file}"
    return next(iter(sort_runs(destination).newest_first), None)


def sort_runs(destination: Destination) -> RunFiles:
    """Return the files of all runs, in the order in which the runs began, newest first; read only their footers.

    Raises:
        SettingsError: this user may not list them.
    """
    began: dict[str, datetime] = {}
    unreadable: list[str] = []
    denied: list[str] = []
    for path in destination.run_files():
        try:
            if found := read_record(destination.store, path, whole=False):
                began[path] = found[1].started_at or _last_image(destination.store, path)
        except SettingsError:
            denied.append(path)
        except DarkroomError:
            unreadable.append(path)
    newest_first = sorted(began, key=lambda path: (began[path], path), reverse=True)
    return RunFiles(tuple(newest_first), tuple(unreadable), tuple(denied))


def _last_image(store: Store, path: str) -> datetime:
    """Return when a run processed its last image: files of early versions lack the begin."""
    with store.open(path) as file:
        metadata = pq.read_metadata(file)
    column = metadata.schema.names.index("processed_at")
    groups = [metadata.row_group(number).column(column).statistics for number in range(metadata.num_row_groups)]
    return max((group.max for group in groups if group), default=datetime.min.replace(tzinfo=UTC))
