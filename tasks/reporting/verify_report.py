"""What people look at after a verification: its figures, the summary and the findings as Prefect artifacts."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from darkroom.tasks.dataset import sql
from darkroom.tasks.dataset.layout import FINDINGS, Workspace
from darkroom.tasks.repair import MOVED, Repaired
from darkroom.tasks.reporting.artifacts import artifact_key
from darkroom.tasks.reporting.findings import FindingKind
from darkroom.tasks.reporting.markdown import code, plain, table
from darkroom.tasks.reporting.run_report import first_problems
from darkroom.tasks.reporting.text import megabytes, printable
from darkroom.tasks.storage.store import unused_name

FINDINGS_SHOWN = 300
PROBLEMS_SHOWN = 20

REMADE = (FindingKind.DAMAGED, FindingKind.INVALID_ROW, FindingKind.MISSING)
"""What the next run makes again, once what is there of it is out of the way."""


class FoundFile(BaseModel):
    """A file, or a row of the manifest, that is not as it should be."""

    kind: str
    file_name: str | None
    source_path: str | None
    detail: str


class VerifyReport(BaseModel):
    """What a verification found."""

    destination: str
    run_id: str
    repair: bool = False
    sample: float = 1.0
    seconds: float = 0.0
    work_seconds: float = 0.0
    outputs: int = 0
    """Outputs that the manifest names."""

    reread: int = 0
    """Outputs that were read again."""

    bytes: int = 0
    counts: dict[str, int] = {}
    """Number of findings by kind, the worst first."""

    findings: list[FoundFile] = []
    """The first of them."""

    findings_file: str = ""
    """All of them; relative to the destination, empty if there are none."""

    quarantine: str = ""
    """Where a repair moved files to; relative to the destination, empty if it moved none."""

    moved: int = 0
    removed: int = 0
    rebuild_needed: bool = False
    """Whether this installation would make other pixels than the manifest's run did, and so refuses to."""

    problems: list[str] = []
    """What kept the verification or the repair from being complete."""

    @property
    def found(self) -> int:
        """Number of findings."""
        return sum(self.counts.values())

    @property
    def is_clean(self) -> bool:
        """Whether all was looked at and nothing is wrong."""
        return not self.counts and not self.problems

    def headline(self) -> str:
        """Say in a line what was found."""
        scope = f"{self.outputs:,} outputs, {self.reread:,} of them read again"
        if self.counts:
            found = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in self.counts.items())
            return f"{found}; {scope}."
        return f"{'Not all could be verified' if self.problems else 'As the manifest says'}: {scope}."

    def failure(self) -> str:
        """Say what was found and what to do about it, the counts in the first line."""
        return "\n".join([self.headline(), *first_problems(self.problems), *self.remedies()])

    def remedies(self) -> list[str]:
        """Say what was done about what was found, and what is to be done."""
        remedies = [self._repaired()] if self.moved or self.removed else []
        remade = sum(self.counts.get(kind, 0) for kind in REMADE)
        if not self.repair and self.counts.keys() & set(MOVED):
            remedies.append(
                "Verify with --repair (repair: true) to move what should not be there to a quarantine; the next "
                "'darkroom run' then makes just that again, and what is missing."
            )
        elif remade:
            remedies.append(f"The next 'darkroom run' makes {remade:,} again.")
        if remade and self.rebuild_needed:
            remedies.append(
                "The codec libraries here are not those that made these outputs: that run is refused until they are, "
                "or makes all outputs again with --rebuild."
            )
        if FindingKind.UNREADABLE in self.counts:
            remedies.append("What is unreadable may be whole: see to the reason, and verify again.")
        return remedies

    def _repaired(self) -> str:
        moved = f"{self.moved:,} moved to {self.destination}/{self.quarantine}" if self.moved else ""
        removed = f"{self.removed:,} temporary removed" if self.removed else ""
        return f"Repaired: {', '.join(filter(None, (moved, removed)))}."

    def take_findings(self, workspace: Workspace) -> str | None:
        """Make one file of all findings, the worst first, fill in its figures, and return it; None without findings.

        The file lies below the destination's `findings/`.
        """
        with workspace.scratch() as scratch, sql.connect(scratch) as db:
            parts = [workspace.store.local(part, scratch) for part in workspace.journal_parts()]
            found = dict(db.execute(f"SELECT kind, count(*) FROM {sql.parquet(*parts)} GROUP BY 1").fetchall())
            if not found:
                return None
            path = _keep(db, workspace, parts, scratch)
            kept = sql.parquet(workspace.store.local(path, scratch))
            shown = db.execute(
                f"SELECT kind, file_name, source_path, detail FROM {kept} LIMIT {FINDINGS_SHOWN}"
            ).fetchall()
        self.counts = {kind.value: found[kind] for kind in FindingKind if kind in found}
        self.findings = [
            FoundFile(kind=kind, file_name=name, source_path=source, detail=detail)
            for kind, name, source, detail in shown
        ]
        self.findings_file = path
        return path

    def take_repair(self, repaired: Repaired) -> None:
        """Fill in what a repair did."""
        self.moved = repaired.moved
        self.removed = repaired.removed
        if repaired.moved:
            self.quarantine = repaired.quarantine
        if repaired.failed:
            self.problems.append(
                f"{repaired.failed:,} files could not be moved or removed, the first for this reason: "
                f"{printable(repaired.problem)}."
            )


def _keep(db: sql.Connection, workspace: Workspace, parts: list[Path], scratch: Path) -> str:
    ranks = " ".join(f"WHEN {sql.text(kind)} THEN {rank}" for rank, kind in enumerate(FindingKind))
    file = scratch / "findings.parquet"
    sql.copy(db, f"FROM {sql.parquet(*parts)} ORDER BY CASE kind {ranks} END, file_name, source_path", file)
    path = f"{FINDINGS}/{unused_name(workspace.store, FINDINGS, workspace.run_id, '.parquet')}"
    workspace.store.put_file(path, file)
    return path


def publish_artifacts(report: VerifyReport) -> None:
    """Put the summary, and the findings if there are any, on the flow run's page."""
    from prefect.artifacts import create_markdown_artifact, create_table_artifact

    create_markdown_artifact(
        verify_markdown(report), key=artifact_key(report.destination, "verify"), description=report.headline()
    )
    if report.findings:
        create_table_artifact(
            [finding.model_dump() for finding in report.findings],
            key=artifact_key(report.destination, "verify-findings"),
            description=f"{len(report.findings):,} of {report.found:,} findings",
        )


def verify_markdown(report: VerifyReport) -> str:
    """Return what was found as GitHub-flavoured Markdown."""
    sections = [f"# {report.headline()}"]
    sections += [f"**{plain(line)}**" for line in [*report.problems[:PROBLEMS_SHOWN], *report.remedies()]]
    if len(report.problems) > PROBLEMS_SHOWN:
        sections.append(f"And {len(report.problems) - PROBLEMS_SHOWN:,} more such problems.")
    sections.append(f"`{code(report.destination)}`")
    if report.counts:
        rows = [(kind.replace("_", " "), f"{count:,}") for kind, count in report.counts.items()]
        sections.append(table(["found", "number"], rows))
        sections.append(f"All of them: `{code(report.findings_file)}`")
    share = "" if report.sample == 1 else f" (a sample of {report.sample:g})"
    sections.append(
        f"{report.reread:,} of {report.outputs:,} outputs read again{share}, {megabytes(report.bytes)} MB in "
        f"{report.work_seconds:,.1f} s; {report.seconds:,.1f} s in all. That all outputs are there and have the right "
        "size, and that nothing else is there, was looked up for all."
    )
    return "\n\n".join(sections) + "\n"
