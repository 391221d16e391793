"""What the command line prints, and how it exits."""

import re

import pytest

from darkroom.flows.cli.terminal import exit_on_error, print_history, print_report
from darkroom.tasks.errors import ClusterError, SettingsError
from darkroom.tasks.reporting.figures import FailedImage
from darkroom.tasks.reporting.history import History
from darkroom.tasks.reporting.run_report import RunReport
from tests.tasks.helpers import past_run


@pytest.mark.parametrize(("problem", "code"), [(SettingsError("wrong [width]"), 2), (ClusterError("lost [a]"), 1)])
def test_an_error_becomes_a_line_and_an_exit_code(problem, code, capsys):
    with pytest.raises(SystemExit) as end, exit_on_error():
        raise problem
    assert end.value.code == code
    assert capsys.readouterr().err == f"darkroom: {problem}\n"


def test_the_history_is_a_table_as_wide_as_it_has_to_be(capsys):
    runs = (past_run("b" * 40, ok=1000), past_run("a" * 40, ok=10, interrupted=True), past_run("c" * 40, ok=500))
    print_history(History(runs))
    header, *lines = capsys.readouterr().out.splitlines()
    assert re.split(r" {2,}", header.strip())[:3] == ["started (UTC)", "made", "failed"]
    assert [line.split()[2] for line in lines] == ["1,000", "10", "500"]
    assert [line.rstrip().rpartition("  ")[2] for line in lines] == ["b" * 40, f"{'a' * 40} (interrupted)", "c" * 40]
    ends = {line.index(f" {made} ") + len(made) for line, made in zip(lines, ("1,000", "10", "500"), strict=True)}
    assert len(ends) == 1, "figures are aligned to the right"
    assert [line.count("█") for line in lines] == [12, 0, 6]


def test_run_files_that_can_not_be_read_are_named(capsys):
    print_history(History(unreadable=("x.parquet",), denied=("y.parquet",)))
    printed = capsys.readouterr()
    assert "No run" not in printed.out
    assert printed.err.splitlines() == [
        "left out  x.parquet: damaged, or of another version",
        "left out  y.parquet: this user may not read them",
    ]
    print_history(History())
    assert capsys.readouterr().out == "No run has published an image yet.\n"


def test_a_preview_lists_failures_and_pictures_and_says_that_nothing_was_published(capsys):
    failure = FailedImage(source_path="a\n.jpg", error_code="decode.corrupt", error_message="no")
    report = RunReport(
        source="/s", destination="/dest", run_id="r", ok=1, failed=1, failures=(failure,), preview=True,
        pictures=("/dest/contact-sheet.jpg",),
    )  # fmt: skip
    print_report(report, "page")
    headline, *lines = capsys.readouterr().out.splitlines()
    assert headline.startswith("Preview: 1 made, 1 failed")
    assert lines == [
        "a�.jpg: decode.corrupt: no",
        "picture   /dest/contact-sheet.jpg",
        "outputs   /dest/images/",
        "Nothing was published; run without --limit.",
    ]


def test_what_was_skipped_is_printed_by_suffix_with_the_options_that_would_list_it(capsys):
    report = RunReport(
        source="/s", destination="/d", run_id="r", skipped={"not_image": 3, "outside": 1}, not_images={"": 2, "txt": 1}
    )
    print_report(report, "page")
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert ["skipped", "3 not image (2 without suffix, 1 .txt), 1 outside"] in lines
    assert [text.split()[0] for label, text in lines if label == "hint"] == ["--follow-symlinks", "--by-content"]
