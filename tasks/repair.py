"""Move files that differ from the manifest to a quarantine, so that the next run makes them again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from darkroom.tasks.dataset import sql
from darkroom.tasks.dataset.layout import QUARANTINE, Workspace
from darkroom.tasks.dataset.lease import HeldLease
from darkroom.tasks.reporting.findings import MOVED
from darkroom.tasks.storage.local_files import is_temporary
from darkroom.tasks.storage.store import unused_name
from darkroom.tasks.storage.store_errors import StorageError

BATCH_FILES = 1_000
"""Number of files after which the lease is checked again."""


@dataclass(slots=True)
class Repaired:
    """The result of a repair."""

    quarantine: str
    """Path of the quarantine in the destination."""

    moved: int = 0
    removed: int = 0
    failed: int = 0
    """Files that could not be moved or removed."""

    problem: str = ""
    """Why the first of these failed."""


def repair(workspace: Workspace, findings: str, lease: HeldLease) -> Repaired:
    """Move damaged and foreign files from `images/` to the quarantine, and remove temporary files.

    The manifest stays as it is: the next run finds moved outputs missing, and makes them again. An interruption at any
    point loses no file.

    Raises:
        LeaseError, DestinationError: the lease was lost.
    """
    store = workspace.store
    repaired = Repaired(f"{QUARANTINE}/{unused_name(store, QUARANTINE, workspace.run_id)}")
    for file_names in _out_of_place(workspace, findings):
        lease.check()
        for file_name in file_names:
            try:
                if is_temporary(file_name):
                    store.delete([file_name])
                    repaired.removed += 1
                else:
                    store.move(file_name, f"{repaired.quarantine}/{file_name}")
                    repaired.moved += 1
            except StorageError as error:
                repaired.failed += 1
                repaired.problem = repaired.problem or f"{file_name}: {error.reason}"
    return repaired


def _out_of_place(workspace: Workspace, findings: str) -> Iterator[list[str]]:
    kinds = ", ".join(sql.text(kind) for kind in MOVED)
    with workspace.scratch() as scratch, sql.connect(scratch) as db:
        found = sql.parquet(workspace.store.local(findings, scratch))
        present = f"SELECT DISTINCT file_name FROM {found} WHERE present AND kind IN ({kinds})"
        for batch in sql.stream(db, f"{present} ORDER BY file_name", BATCH_FILES):
            yield batch.column(0).to_pylist()
