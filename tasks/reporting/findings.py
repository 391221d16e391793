"""Findings of a verification: their kinds, their table, and the file that collects them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import pyarrow as pa
from pydantic import BaseModel

from darkroom.tasks.dataset import sql
from darkroom.tasks.dataset.layout import Workspace
from darkroom.tasks.storage.durable import replace_durably, unused_name

FINDINGS_SHOWN = 300


class FindingKind(StrEnum):
    """What can be wrong, the worst first."""

    DAMAGED = "damaged"
    """The file is not the one that was written."""

    INVALID_ROW = "invalid_row"
    """The manifest's row contradicts itself."""

    MISSING = "missing"
    """The manifest names a file that does not exist."""

    UNREADABLE = "unreadable"
    """The file could not be read this time: it may be intact."""

    FOREIGN = "foreign"
    """The manifest does not name the file."""


MOVED = (FindingKind.DAMAGED, FindingKind.INVALID_ROW, FindingKind.FOREIGN)
"""Findings whose files a repair moves away. An unreadable file may be intact, and stays."""

REMADE = (FindingKind.DAMAGED, FindingKind.INVALID_ROW, FindingKind.MISSING)
"""Findings whose outputs the next run makes again, once their files are moved away."""

FINDINGS_SCHEMA = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("file_name", pa.string()),
        pa.field("source_path", pa.string()),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("present", pa.bool_(), nullable=False),
    ]
)
"""`file_name` as in the manifest; `present` is whether a file of that name exists."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of `FINDINGS_SCHEMA`."""

    kind: FindingKind
    file_name: str | None
    source_path: str | None
    detail: str
    present: bool = True


class ShownFinding(BaseModel):
    """A finding as people are shown it."""

    kind: str
    file_name: str | None
    source_path: str | None
    detail: str


@dataclass(frozen=True, slots=True)
class Findings:
    """All findings of a verification."""

    counts: dict[str, int]
    """By kind, the worst first."""

    first: tuple[ShownFinding, ...]
    """The worst `FINDINGS_SHOWN`."""

    file: Path
    """All of them, below the destination's `findings/`."""


def collect_findings(workspace: Workspace) -> Findings | None:
    """Write one file of all findings in a verification's journal, the worst first; return None without findings."""
    parts = workspace.journal_parts()
    with sql.connect(workspace.root) as db:
        found = dict(db.execute(f"SELECT kind, count(*) FROM {sql.parquet(*parts)} GROUP BY 1").fetchall())
        if not found:
            return None
        path = _write(db, workspace, parts)
        first = sql.rows(
            db, f"SELECT kind, file_name, source_path, detail FROM {sql.parquet(path)} LIMIT {FINDINGS_SHOWN}"
        )
    counts = {kind.value: found[kind] for kind in FindingKind if kind in found}
    return Findings(counts, tuple(ShownFinding(**row) for row in first), path)


def _write(db: sql.Connection, workspace: Workspace, parts: list[Path]) -> Path:
    ranks = " ".join(f"WHEN {sql.text(kind)} THEN {rank}" for rank, kind in enumerate(FindingKind))
    temporary = workspace.root / "findings.parquet"
    sql.copy(db, f"FROM {sql.parquet(*parts)} ORDER BY CASE kind {ranks} END, file_name, source_path", temporary)
    folder = workspace.destination.findings
    folder.mkdir(exist_ok=True)
    path = folder / unused_name(folder, workspace.run_id, ".parquet")
    replace_durably(temporary, path)
    return path
