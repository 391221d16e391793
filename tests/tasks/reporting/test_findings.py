import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from darkroom.tasks.reporting.findings import FINDINGS_SCHEMA, FINDINGS_SHOWN, FindingKind, collect_findings
from tests.places import disk


@pytest.mark.parametrize("extra", [0, 25])
def test_the_worst_findings_are_shown_and_all_are_kept(place, extra):
    workspace = place.workspace("r", "verify")
    workspace.begin()
    disk(workspace, "journal").mkdir()
    total = FINDINGS_SHOWN + extra
    rows = [
        {"kind": kind, "file_name": f"images/{number}", "source_path": None, "detail": "x", "present": True}
        for number, kind in zip(range(total), list(FindingKind) * total, strict=False)
    ]
    for number in range(2):
        table = pa.Table.from_pylist(rows[number::2], FINDINGS_SCHEMA)
        pq.write_table(table, disk(workspace, "journal") / f"{number:06}.parquet")
    findings = collect_findings(workspace)
    assert pq.read_metadata(place.path(findings.file)).num_rows == sum(findings.counts.values()) == total
    assert len(findings.first) == FINDINGS_SHOWN
    assert list(findings.counts) == list(FindingKind)
    kinds = [finding.kind for finding in findings.first]
    assert kinds == sorted(kinds, key=list(FindingKind).index)
    assert kinds.count("damaged") == total // 5
