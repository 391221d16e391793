from markdown_it import MarkdownIt

from darkroom.tasks.reporting.findings import ShownFinding
from darkroom.tasks.reporting.verify_report import VerifyReport, findings_markdown, verify_markdown


def report(**figures):
    return VerifyReport(destination="/data/out", run_id="r", **figures)


def test_a_failure_has_the_counts_then_the_remedies():
    found = report(outputs=1234, reread=1200, counts={"damaged": 1000, "missing": 2, "invalid_row": 1})
    assert found.failure().splitlines() == [
        "1,000 damaged, 2 missing, 1 invalid row; 1,234 outputs, 1,200 of them read again.",
        "Verify with `repair=True` to move damaged and foreign files to a quarantine; the next 'darkroom run' "
        "then makes damaged and missing outputs again.",
    ]
    assert report(outputs=9, reread=9).headline() == "As the manifest says: 9 outputs, 9 of them read again."


def test_each_kind_of_finding_has_its_remedy():
    repaired = {"repair": True, "quarantine": ".darkroom/quarantine/r", "moved": 2, "removed": 1}
    for kind, figures, remedies in (
        ("missing", {}, ["The next 'darkroom run' makes 3 again."]),
        (
            "damaged",
            {"repair": True, "unmoved": 1},
            [
                "The next 'darkroom run' makes at most 3 again.",
                "Files that could not be moved stay as they are: remove the cause, and repair again.",
            ],
        ),
        ("unreadable", {}, ["Unreadable outputs may be intact: remove the cause, and verify again."]),
        ("foreign", repaired, ["Repaired: 2 moved to /data/out/.darkroom/quarantine/r, 1 temporary removed."]),
    ):
        assert report(counts={kind: 3}, **figures).remedies() == remedies


def test_other_codec_libraries_are_mentioned_if_outputs_must_be_made_again():
    assert "`rebuild=True`" in report(counts={"missing": 1}, rebuild_needed=True).failure()
    assert "`rebuild=True`" not in report(counts={"foreign": 1}, rebuild_needed=True).failure()


def test_an_incomplete_verification_fails():
    some = report(outputs=9, reread=3, problems=[f"Shard {number} could not be verified: lost" for number in range(8)])
    assert not some.succeeded
    lines = some.failure().splitlines()
    assert lines[0] == "Not all could be verified: 9 outputs, 3 of them read again."
    assert (len(lines), lines[-1]) == (7, "And 3 more problems, which the summary lists.")
    for number in range(8):
        assert f"Shard {number} could not be verified" in verify_markdown(some)


def test_odd_names_and_reasons_stay_in_their_paragraphs():
    odd = VerifyReport(
        destination="/a`b\n# c",
        run_id="r",
        counts={"damaged": 1},
        findings_file="findings/r.parquet",
        problems=["images/x`\n# y|z: No space left"],
    )
    tokens = MarkdownIt("commonmark").enable("table").parse(verify_markdown(odd))
    assert [token.tag for token in tokens if token.type == "heading_open"] == ["h1"]


def test_findings_are_listed_by_kind_under_the_name_of_the_file():
    findings = (
        ShownFinding(kind="damaged", file_name="images/a.jpg", source_path="a.jpg", detail="other bytes"),
        ShownFinding(kind="invalid_row", file_name=None, source_path="b.jpg", detail="no output"),
    )
    assert findings_markdown(report(counts={"damaged": 1, "invalid_row": 5}, findings=findings)) == (
        "# 6 found\n\nThe first 2 of them:\n\n## damaged\n\n- `images/a.jpg`: other bytes\n\n"
        "## invalid row\n\n- `b.jpg`: no output\n"
    )


def test_an_interrupted_verification_says_that_it_begins_again():
    assert report(interrupted=True, outputs=9).headline().startswith("Stopped before its end. Another verification")
