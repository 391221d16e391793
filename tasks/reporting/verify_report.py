"""The report of a verification, and its Markdown."""

from __future__ import annotations

from pydantic import Field
from rich.filesize import decimal

from darkroom.tasks.reporting.findings import MOVED, REMADE, FindingKind, ShownFinding
from darkroom.tasks.reporting.report import Report, first_problems, problems_markdown
from darkroom.tasks.reporting.text import code, duration, grouped_list, plain, table
from darkroom.tasks.wording import counted


class VerifyReport(Report):
    """What a verification found; `problems` are the reasons why it, or its repair, is incomplete."""

    repair: bool = False
    sample: float = 1.0
    outputs: int = 0
    """Number of outputs in the manifest."""

    reread: int = 0
    """Number of outputs that were read again."""

    bytes: int = 0
    counts: dict[str, int] = Field({})
    """Number of findings by kind, the worst kind first."""

    findings: tuple[ShownFinding, ...] = ()
    """The worst findings."""

    findings_file: str = ""
    """Path of the file of all findings, relative to the destination; empty if there are none."""

    quarantine: str = ""
    """Folder that a repair moved files to, relative to the destination; empty if it moved none."""

    moved: int = 0
    removed: int = 0
    unmoved: int = 0
    """Number of files that a repair could not move or remove."""

    rebuild_needed: bool = False
    """Whether the codec libraries here differ from those that made the outputs, so that runs refuse to add any."""

    @property
    def found(self) -> int:
        """Number of findings."""
        return sum(self.counts.values())

    @property
    def succeeded(self) -> bool:
        """Whether everything was verified and nothing is wrong."""
        return not self.counts and not self.problems

    def headline(self) -> str:
        """Return one line about what was found."""
        if self.interrupted:
            return "Stopped before its end. Another verification, or a retry of this one, begins again."
        if self.problems and not self.outputs:
            return "Nothing was verified."
        scope = f"{counted(self.outputs, 'output')}, {self.reread:,} of them read again"
        if self.counts:
            found = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in self.counts.items())
            return f"{found}; {scope}."
        return f"{'Not all could be verified' if self.problems else 'As the manifest says'}: {scope}."

    def failure(self) -> str:
        """Return the headline, the problems, and what to do, a line each."""
        return "\n".join([self.headline(), *first_problems(self.problems), *self.remedies()])

    def remedies(self) -> list[str]:
        """Return sentences about what was repaired, and what users should do."""
        remedies = [self._repaired()] if self.moved or self.removed else []
        remade = sum(self.counts.get(kind, 0) for kind in REMADE)
        if not self.repair and self.counts.keys() & set(MOVED):
            remedies.append(
                "Verify with `repair=True` to move damaged and foreign files to a quarantine; the next 'darkroom run' "
                "then makes damaged and missing outputs again."
            )
        elif remade:
            remedies.append(f"The next 'darkroom run' makes {'at most ' if self.unmoved else ''}{remade:,} again.")
        if self.unmoved:
            remedies.append("Files that could not be moved stay as they are: remove the cause, and repair again.")
        if remade and self.rebuild_needed:
            remedies.append(
                "The codec libraries here are not those that made these outputs: that run is refused until they are, "
                "or makes all outputs again with `rebuild=True`."
            )
        if FindingKind.UNREADABLE in self.counts:
            remedies.append("Unreadable outputs may be intact: remove the cause, and verify again.")
        return remedies

    def _repaired(self) -> str:
        moved = f"{self.moved:,} moved to {self.destination}/{self.quarantine}" if self.moved else ""
        removed = f"{self.removed:,} temporary removed" if self.removed else ""
        return f"Repaired: {', '.join(filter(None, (moved, removed)))}."


def verify_markdown(report: VerifyReport) -> str:
    """Return the report as GitHub-flavoured Markdown."""
    sections = [f"# {report.headline()}"]
    sections += [*problems_markdown(report.problems), *(f"**{plain(line)}**" for line in report.remedies())]
    sections.append(f"`{code(report.destination)}`")
    if report.counts:
        rows = [(kind.replace("_", " "), f"{count:,}") for kind, count in report.counts.items()]
        sections.append(table(["found", "number"], rows))
        sections.append(f"All of them: `{code(report.findings_file)}`")
    share = "" if report.sample == 1 else f" (a sample of {report.sample:g})"
    sections.append(
        f"{report.reread:,} of {report.outputs:,} outputs read again{share}, {decimal(report.bytes)} in "
        f"{duration(report.work_seconds)}; {duration(report.seconds)} in all. The existence and "
        "size of all outputs were checked, and foreign files were searched for."
    )
    return "\n\n".join(sections) + "\n"


def findings_markdown(report: VerifyReport) -> str:
    """Return the worst findings as GitHub-flavoured Markdown."""
    rows = [
        (finding.kind.replace("_", " "), finding.file_name or finding.source_path or "", finding.detail)
        for finding in report.findings
    ]
    return grouped_list(f"{report.found:,} found", rows, report.found)
