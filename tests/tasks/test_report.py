import itertools
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from prefect.client.schemas.actions import ArtifactCreate

from tasks.destination import Destination
from tasks.discover import Listing, Skipped
from tasks.naming import path_to_text
from tasks.plan import Plan, Shard
from tasks.publish import publish
from tasks.report import FAILURES_SHOWN, RunReport, SlowImage, artifact_key, read_figures, summary_markdown
from tests.tasks.helpers import failed_row, make_job, open_workspace, publish_rows, row, write_journal

ODD = [
    "a|b.jpg",
    "a`b`.jpg",
    "``.jpg",
    "`",
    "a\nb.jpg",
    "<script>.jpg",
    "[x](y).jpg",
    "\\|.jpg",
    "$x$.jpg",
    "é🐈.jpg",
    " ",
]


def report(**figures):
    return RunReport(source="/source", destination="/dest", run_id="r", **figures)


def slow(path):
    return SlowImage(source_path=path, ms=12.4, source_bytes=1, megapixels=1.0)


def rendered(markdown):
    """The document's top-level blocks, tables as lists of rows of the texts of their cells."""
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    tables, others = [], []
    for before, token in itertools.pairwise(tokens):
        if token.type == "table_open":
            tables.append([])
        if before.type == "tr_open":
            tables[-1].append([])
        if token.type == "inline" and before.type in {"td_open", "th_open"}:
            tables[-1][-1].append(token)
        elif token.type == "inline":
            others.append((before.type, token))
    return tables, others


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip), min_size=1, max_size=4))
@example(ODD[:-1])
@example([path_to_text(b"\xff|`\xfe.jpg")])
def test_names_stay_in_their_cells_whatever_they_hold(names):
    tables, _ = rendered(summary_markdown(report(ok=1, slowest=[slow(name) for name in names])))
    header, *rows = tables[-1]
    assert [cell.content for cell in header] == ["image", "ms", "megapixels"]
    assert len(rows) == len(names)
    for cells in rows:
        assert len(cells) == 3
        assert [child.type for child in cells[0].children] == ["code_inline"]
        assert cells[1].content == "12"


def test_a_usual_name_is_shown_as_it_is():
    assert "| `a/é b.jpg` | 12 | 1.0 |" in summary_markdown(report(ok=1, slowest=[slow("a/é b.jpg")]))


def test_odd_places_and_folders_stay_in_their_paragraphs():
    odd = RunReport(source="/a`b\n# c", destination="/<b>|", run_id="r", unreadable_folders=["", "x`\ny", "z"])
    _, others = rendered(summary_markdown(odd))
    assert [kind for kind, _ in others] == ["heading_open", "paragraph_open", "heading_open", "paragraph_open"]
    assert {child.type for _, token in others for child in token.children} <= {"text", "code_inline"}
    assert others[-1][1].content.endswith("`.`, `xˋ�y`, `z`")


def test_the_summary_tells_what_happened():
    full = report(
        ok=1200, failed=3, touched=2, unchanged=5, deleted=1, known=1210, source_bytes=5_000_000, seconds=20.0,
        output_bytes=1_000_000, work_seconds=10.0, error_codes={"decode.corrupt": 3}, skipped={"not_image": 2},
        reasons={"new": 1205},
    )  # fmt: skip
    text = summary_markdown(full)
    assert text.startswith("# 1,200 made, 3 failed, 7 unchanged, 1 deleted\n")
    for line in (
        "| made | 1,200 |",
        "| **in the manifest** | 1,210 |",
        "| skipped: not image | 2 |",
        "| to do: new | 1,205 |",
        "| decode.corrupt | 3 |",
        "5.0 MB read, 1.0 MB written, 120.5 images/s over 10.0 s of work; 20.0 s in all.",
    ):
        assert line in text
    assert "adopted" not in text


def test_a_run_with_nothing_to_do_says_so():
    assert report(unchanged=1234).headline() == "Nothing to do: 1,234 images unchanged."
    assert "images/s" not in summary_markdown(report(unchanged=1))


@pytest.mark.parametrize(
    ("failed", "ok", "ratio", "problem"),
    [(1, 9, 0.1, False), (2, 9, 0.1, True), (0, 0, 0.0, False), (1, 1000, 0.0, True), (5, 0, 1.0, False)],
)
def test_too_many_failures_are_a_problem(failed, ok, ratio, problem):
    checked = report(failed=failed, ok=ok, error_codes={"decode.corrupt": failed})
    checked.check_failures(ratio)
    assert bool(checked.problems) is problem
    if problem:
        assert f"{failed} × decode.corrupt" in checked.problems[0]
        assert f"max_failure_ratio = {ratio:g}" in checked.problems[0]


@given(
    st.text(st.characters(codec="utf-8")).map(lambda name: f"/data/{name}"), st.sampled_from(["summary", "progress"])
)
@example("/", "summary")
@example("/data/ÄÖÜ", "failures")
@example("/data/" + "x" * 300, "failures")
@example("/data/My_Data.Set (2)", "summary")
def test_prefect_accepts_every_artifact_key(destination, kind):
    key = artifact_key(destination, kind)
    assert re.fullmatch("[a-z0-9-]+", key)
    assert ArtifactCreate(key=key).key == key
    assert key.endswith(f"-{kind}")


def test_artifact_keys_tell_destinations_apart_and_stay_the_same():
    keys = {artifact_key(path, "summary") for path in ("/a/data", "/b/data", "/a/DATA", "/a/da-ta")}
    assert len(keys) == 4
    assert artifact_key("/mnt/My Data", "summary") == artifact_key("/mnt/My Data", "summary")
    assert artifact_key("/mnt/My Data", "summary").startswith("my-data-")


def test_what_was_found_and_planned_is_taken_over():
    listing = Listing(None, 12, 99, Skipped(unreadable=["x"]))
    listing.skipped.counts["hidden"] += 3
    plan = Plan((Shard(0, 10, 99),), {"new": 4, "changed": 6}, deleted=1, unchanged=2, known=9)
    taken = report()
    taken.take_plan(listing, plan)
    assert (taken.unchanged, taken.deleted, taken.known, taken.skipped) == (2, 1, 9, {"hidden": 3})
    assert taken.unreadable_folders == ["x"]
    assert taken.describe_plan(1) == "10 images to process (4 new, 6 changed) in 1 shards; 2 unchanged, 1 deleted"


@pytest.mark.parametrize("name", ["dest", "[a]*?'", "status=ok"])
def test_figures_are_those_of_the_run_and_the_manifest(tmp_path, name):
    place = Destination(tmp_path / name)
    publish_rows(place, [row("known.jpg"), failed_row("bad.jpg", "decode.corrupt")], run_id="before")
    job = make_job(place)
    workspace = open_workspace(place, job)
    rows = [
        row("a.jpg", decode_ms=100.0, output_bytes=7),
        row("b.jpg"),
        row("known.jpg", status="unchanged", file_name=None, output_bytes=None),
        failed_row("f1.jpg", "decode.corrupt", decode_ms=None),
        failed_row("f2.jpg", "decode.corrupt"),
        failed_row("f3.jpg", "source.denied", source_size=None),
    ]
    write_journal(workspace, rows)
    publish(workspace, job, delete=True)
    figures = report()
    read_figures(figures, workspace, job)
    assert (figures.ok, figures.failed, figures.touched, figures.attempted) == (2, 3, 1, 6)
    assert (figures.known, figures.known_failed) == (7, 4)
    assert (figures.source_bytes, figures.output_bytes) == (5000, 17)
    assert list(figures.error_codes.items()) == [("decode.corrupt", 2), ("source.denied", 1)]
    assert [failure.source_path for failure in figures.failures] == ["f1.jpg", "f2.jpg", "f3.jpg"]
    assert [image.source_path for image in figures.slowest] == ["a.jpg", "b.jpg"]
    assert (figures.slowest[0].ms, figures.slowest[0].megapixels) == (113.0, 0.0012)
    assert [(times.stage, times.p50, times.max) for times in figures.stages][1] == ("decode", 2.0, 100.0)
    summary_markdown(figures)


def test_failures_without_a_message_and_more_than_can_be_shown(place):
    job = make_job(place)
    workspace = open_workspace(place, job)
    codes = [failed_row(f"{number}.jpg", "decode.corrupt", error_message=None) for number in range(FAILURES_SHOWN + 5)]
    write_journal(workspace, codes)
    publish(workspace, job, delete=True)
    figures = report()
    read_figures(figures, workspace, job)
    assert (len(figures.failures), figures.failed, figures.stages) == (FAILURES_SHOWN, FAILURES_SHOWN + 5, [])
    assert figures.failures[0].error_message == ""
