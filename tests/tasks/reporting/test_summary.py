import base64
import itertools
import re
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from darkroom.tasks.reporting.contact_sheet import ContactSheet, ContactSheets
from darkroom.tasks.reporting.figures import FailedImage, SlowImage
from darkroom.tasks.reporting.history import History
from darkroom.tasks.reporting.run_report import RunReport
from darkroom.tasks.reporting.summary import failures_markdown, summary_markdown
from darkroom.tasks.reporting.text import first_sentence, printable
from darkroom.tasks.storage.naming import path_to_text
from tests.tasks.helpers import past_run

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
    """Return the document's tables, as lists of rows of cells, and its other blocks, as (kind, token)."""
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


def text_of(token):
    return "".join(child.content for child in token.children)


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip), min_size=1, max_size=4))
@example(ODD[:-1])
@example([path_to_text(b"\xff|`\xfe.jpg")])
def test_names_stay_in_their_cells_whatever_they_contain(names):
    tables, _ = rendered(summary_markdown(report(ok=1, slowest=[slow(name) for name in names])))
    header, *rows = tables[-1]
    assert [cell.content for cell in header] == ["image", "ms", "megapixels"]
    assert len(rows) == len(names)
    for cells in rows:
        assert len(cells) == 3
        assert [child.type for child in cells[0].children] == ["code_inline"]
        assert cells[1].content == "12"


def test_an_ordinary_name_is_shown_unchanged():
    assert "| `a/é b.jpg` | 12 | 1.0 |" in summary_markdown(report(ok=1, slowest=[slow("a/é b.jpg")]))


def test_odd_places_and_folders_stay_in_their_paragraphs():
    odd = RunReport(source="/a`b\n# c", destination="/<b>|", run_id="r", unreadable_folders=["", "x`\ny", "z"])
    _, others = rendered(summary_markdown(odd))
    assert [kind for kind, _ in others] == ["heading_open", "paragraph_open", "heading_open", "paragraph_open"]
    assert {child.type for _, token in others for child in token.children} <= {"text", "code_inline"}
    assert others[-1][1].content.endswith("`.`, `xˋ�y`, `z`")


def test_skipped_files_are_counted_by_suffix_with_the_settings_that_include_them():
    suffixes = {"txt": 1_000, "": 3, "a|b": 2, **{f"x{number}": 1 for number in range(30)}}
    text = summary_markdown(report(skipped={"not_image": 1_035, "outside": 2}, not_images=suffixes, planned=True))
    for line in ("| `.txt` | 1,000 |", "| `without suffix` | 3 |", "| `.a¦b` | 2 |", "| others | 13 |"):
        assert line in text
    assert "follow_symlinks=True" in text
    assert "by_content=True" in text
    assert "no images, by suffix" not in summary_markdown(report(skipped={"hidden": 1}, planned=True))


def test_the_summary_of_a_run():
    full = report(
        ok=1200, failed=3, touched=2, unchanged=5, deleted=3, known=1210, source_bytes=5_000_000, seconds=20.0,
        output_bytes=1_000_000, work_seconds=10.0, error_codes={"decode.corrupt": 3}, skipped={"not_image": 2},
        reasons={"new": 1201, "missing": 3, "moved": 2, "moon phase": 1}, planned=True, published=True,
    )  # fmt: skip
    text = summary_markdown(full)
    assert text.startswith("# 1,200 made (2 of them moved), 3 failed, 7 unchanged, 1 deleted\n")
    for line in (
        "| made | 1,200 |",
        "| of them moved | 2 |",
        "| of them touched, but the same bytes | 2 |",
        "| deleted | 1 |",
        "| **in the manifest** | 1,210 |",
        "| skipped: not image | 2 |",
        "| to do: new | 1,201 |",
        "| to do: missing | 3 |",
        "| to do: moon phase | 1 |",
        "| decode.corrupt | 3 |",
        "5.0 MB read, 1.0 MB written, 120.5 images/s over 10.0 s of work; 20.0 s in all.",
    ):
        assert line in text
    assert "adopted" not in text
    assert "data:" not in text
    assert "Last runs" not in text


def test_a_run_with_nothing_to_do_has_no_throughput():
    assert "images/s" not in summary_markdown(report(unchanged=1, planned=True))


def test_the_summary_of_a_failed_run_begins_with_the_reason():
    failed = report(
        ok=3, failed=2, planned=True, published=True,
        problems=["2 of 5 failed (2 × decode.corrupt). The manifest is published.", "Shard 3 could not be processed."],
    )  # fmt: skip
    assert summary_markdown(failed).startswith(
        "# Failed: 3 made, 2 failed, 0 unchanged\n\n"
        "**2 of 5 failed (2 × decode.corrupt).** The manifest is published.\n\n"
        "**Shard 3 could not be processed.**\n\n"
    )


def test_the_summary_of_a_refused_run():
    text = summary_markdown(report(problems=["/dest is in use by run x. Wait."]))
    assert text == "# Failed\n\n**/dest is in use by run x.** Wait.\n\n`/source` → `/dest`\n"
    guarded = summary_markdown(report(problems=["20 of 26 gone."], planned=True, deleted=20, known=26))
    assert "| gone from the source, not deleted | 20 |" in guarded
    assert "| deleted |" not in guarded


def test_the_summary_of_an_interrupted_run_says_what_is_kept():
    text = summary_markdown(report(interrupted=True, planned=True, to_do=2000, kept=1200))
    assert text.startswith(
        "# Stopped: 1,200 of 2,000 images are finished and kept.\n\n"
        "The next run, or a retry of this one, goes on from there.\n\n"
    )


@given(st.text(st.characters(codec="utf-8")))
@example("max_delete_ratio = 0.2, *all* of _it_ [x](y) <b> `c` & https://a.b | c\n# d")
@example("# heading")
@example("1. a list")
@example("a\\")
@example("__0__")
@example("? A")
def test_problems_are_shown_as_they_are(text):
    problem = f"The folder /{text}/ is full"
    _, others = rendered(summary_markdown(report(problems=[problem])))
    reason, remedy = (printable(part.replace("\n", " ")) for part in first_sentence(problem))
    assert (others[0][0], text_of(others[0][1])) == ("heading_open", "Failed")
    assert text_of(others[1][1]) == f"{reason} {remedy}".rstrip()


def test_pictures_come_after_the_counts_and_before_the_rest():
    sheets = ContactSheets(ContactSheet(b"made picture", 24), ContactSheet(b"failed picture", 3))
    full = report(ok=1200, failed=3, planned=True, published=True, error_codes={"decode.corrupt": 3})
    text = summary_markdown(full, sheets)
    uris = re.findall(r"!\[[^]]*\]\(data:image/jpeg;base64,([^)]*)\)", text)
    assert [base64.b64decode(uri) for uri in uris] == [b"made picture", b"failed picture"]
    places = [text.index(part) for part in ("| made |", "24 of 1,200", uris[0], "3 of 3", uris[1], "## Failures by")]
    assert places == sorted(places)


def test_the_last_runs_are_a_chart_and_a_table():
    runs = (
        past_run("b", started=datetime(2026, 11, 2, 2, 0, tzinfo=UTC), ok=1200, seconds=90.0),
        past_run("a", started=datetime(2026, 11, 1, 2, 0, tzinfo=UTC), ok=7, failed=1, deleted=2, interrupted=True),
    )
    text = summary_markdown(report(planned=True), history=History(runs))
    tables, _ = rendered(text)
    assert [cell.content for cell in tables[-1][1]] == [
        "2026-11-02 02:00", "1,200", "0", "0", "0", "2.0", "1.0", "1:30", "120.0",
    ]  # fmt: skip
    assert [cell.content for cell in tables[-1][2]][:5] == ["2026-11-01 02:00 (interrupted)", "7", "1", "0", "2"]
    assert "data:image/svg+xml;base64," in text
    assert "data:image/svg+xml" not in summary_markdown(report(), history=History(runs[:1]))


@pytest.mark.parametrize("name", ODD)
def test_names_in_the_title_are_not_markup(name):
    _, others = rendered(summary_markdown(report(problems=[f"{name} is odd"])))
    assert {child.type for child in others[0][1].children} == {"text"}


def test_failures_are_listed_by_code_with_their_names_escaped():
    failures = [
        FailedImage(source_path=path, error_code=code, error_message="the end | is *missing*")
        for code, path in (
            ("decode.corrupt", "a`|*b\n.jpg"),
            ("decode.corrupt", "c.jpg"),
            ("decode.truncated", "d.jpg"),
        )
    ]
    _, others = rendered(failures_markdown(report(failed=4, first_failures=tuple(failures))))
    assert [text_of(token) for _, token in others] == [
        "4 failed",
        "The first 3 of them:",
        "decode.corrupt",
        "aˋ¦*b�.jpg: the end | is *missing*",
        "c.jpg: the end | is *missing*",
        "decode.truncated",
        "d.jpg: the end | is *missing*",
    ]
    assert "of them" not in failures_markdown(report(failed=3, first_failures=tuple(failures)))
