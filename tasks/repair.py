"""Move out of the way what is not as the manifest says, so that the next run makes just that again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from darkroom.tasks.dataset import sql
from darkroom.tasks.dataset.layout import Workspace
from darkroom.tasks.dataset.lease import HeldLease
from darkroom.tasks.discover import is_temporary
from darkroom.tasks.reporting.findings import MOVED
from darkroom.tasks.storage.durable import unused_name
from darkroom.tasks.storage.local import LocalFolder

BATCH_FILES = 1_000
"""Between so many files it is made sure that the destination is still this run's."""


@dataclass(slots=True)
class Repaired:
    """What a repair did."""

    quarantine: Path
    moved: int = 0
    removed: int = 0
    failed: int = 0
    """Files that could not be moved or removed."""

    problem: str = ""
    """Why the first of them could not."""


def repair(workspace: Workspace, findings: Path, lease: HeldLease) -> Repaired:
    """Move damaged and foreign files from `images/` to the quarantine, and remove temporary ones.

    The manifest is not touched: the next run finds a moved output missing, and makes it again. Nothing that
    can't be made again is lost, and wherever this is interrupted, each file is in one place or the other.

    Raises:
        LeaseError: the lease was lost.
    """
    folder = workspace.destination.quarantine
    repaired = Repaired(folder / unused_name(folder, workspace.run_id))
    outputs = LocalFolder(os.fsencode(workspace.destination.root))
    quarantine = LocalFolder(os.fsencode(repaired.quarantine))
    for file_names in _out_of_place(workspace, findings):
        lease.check()
        for file_name in file_names:
            try:
                if is_temporary(file_name):
                    outputs.delete(file_name)
                    repaired.removed += 1
                else:
                    outputs.move(file_name, quarantine)
                    repaired.moved += 1
            except OSError as error:
                repaired.failed += 1
                repaired.problem = repaired.problem or f"{file_name}: {os.strerror(error.errno or 0)}"
    return repaired


def _out_of_place(workspace: Workspace, findings: Path) -> Iterator[list[str]]:
    kinds = ", ".join(sql.text(kind) for kind in MOVED)
    with sql.connect(workspace.root) as db:
        present = f"SELECT DISTINCT file_name FROM {sql.parquet(findings)} WHERE present AND kind IN ({kinds})"
        for batch in sql.stream(db, f"{present} ORDER BY file_name", BATCH_FILES):
            yield batch.column(0).to_pylist()
