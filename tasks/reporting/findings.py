"""Findings of a verification: their kinds, their table, and the file of them all."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import pyarrow as pa
from pydantic import BaseModel

from darkroom.tasks.dataset import sql
from darkroom.tasks.dataset.layout import FINDINGS, Workspace
from darkroom.tasks.dataset.rows import arrow_schema
from darkroom.tasks.storage.store import unused_name

FINDINGS_SHOWN = 300


class FindingKind(StrEnum):
    """Kinds of findings, the worst first."""

    DAMAGED = "damaged"
    """The file's bytes are not those that were written."""

    INVALID_ROW = "invalid_row"
    """The manifest's row contradicts itself."""

    MISSING = "missing"
    """The manifest names a file that does not exist."""

    UNREADABLE = "unreadable"
    """The file could not be read this time: it may be intact."""

    FOREIGN = "foreign"
    """The manifest does not name the file."""


MOVED = (FindingKind.DAMAGED, FindingKind.INVALID_ROW, FindingKind.FOREIGN)
"""Kinds whose files a repair moves to the quarantine. An unreadable file may be intact, so it stays."""

REMADE = (FindingKind.DAMAGED, FindingKind.INVALID_ROW, FindingKind.MISSING)
"""Kinds whose outputs the next run makes again after a repair."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A difference between the outputs and the manifest."""

    kind: Annotated[FindingKind, pa.string()]
    file_name: str | None
    """As in the manifest."""

    source_path: str | None
    detail: str
    present: bool = True
    """Whether a file with this name exists."""


FINDINGS_SCHEMA = arrow_schema(Finding)


class ShownFinding(BaseModel):
    """A finding as reports show it."""

    kind: str
    file_name: str | None
    source_path: str | None
    detail: str


@dataclass(frozen=True, slots=True)
class Findings:
    """All findings of a verification."""

    counts: dict[str, int]
    """Number of findings by kind, the worst kind first."""

    first: tuple[ShownFinding, ...]
    """The worst `FINDINGS_SHOWN`."""

    file: str
    """Path of the Parquet file of all findings, relative to the destination."""


def collect_findings(workspace: Workspace) -> Findings | None:
    """Write all findings of a verification's journal, the worst first, to one file; return None if there are none."""
    with workspace.scratch() as scratch, sql.connect(scratch) as db:
        parts = [workspace.store.local(part, scratch) for part in workspace.journal_parts()]
        found = dict(db.execute(f"SELECT kind, count(*) FROM {sql.parquet(*parts)} GROUP BY 1").fetchall())
        if not found:
            return None
        file = scratch / "findings.parquet"
        ranks = " ".join(f"WHEN {sql.text(kind)} THEN {rank}" for rank, kind in enumerate(FindingKind))
        sql.copy(db, f"FROM {sql.parquet(*parts)} ORDER BY CASE kind {ranks} END, file_name, source_path", file)
        first = sql.rows(
            db, f"SELECT kind, file_name, source_path, detail FROM {sql.parquet(file)} LIMIT {FINDINGS_SHOWN}"
        )
        path = f"{FINDINGS}/{unused_name(workspace.store, FINDINGS, workspace.run_id, '.parquet')}"
        workspace.store.put_file(path, file)
    counts = {kind.value: found[kind] for kind in FindingKind if kind in found}
    return Findings(counts, tuple(ShownFinding(**row) for row in first), path)
