"""What commands print at their end."""

import os
import re

import pytest

from darkroom.flows.cli.printing import print_failed, print_history, print_report, print_status, print_unfinished
from darkroom.tasks.dataset.lease import Lease
from darkroom.tasks.dataset.manifest import ManifestInfo
from darkroom.tasks.reporting.figures import FailedImage
from darkroom.tasks.reporting.history import History
from darkroom.tasks.reporting.run_report import RunReport
from darkroom.tasks.reporting.status import Status, Unfinished
from darkroom.tasks.settings import Recipe
from tests.tasks.helpers import failed_row, past_run, publish_rows


def test_the_history_is_a_table_of_80_columns(capsys):
    runs = (past_run("b" * 36, ok=10_000_000), past_run("a" * 36, ok=10, interrupted=True), past_run("c" * 36, ok=500))
    print_history(History(runs))
    header, *lines, note = capsys.readouterr().out.splitlines()
    assert re.split(r" {2,}", header.strip())[:3] == ["started (UTC)", "made", "failed"]
    assert [line.split()[2] for line in lines] == ["10,000,000", "10", "500"]
    assert [line.split()[-1] for line in lines] == ["b" * 8, f"{'a' * 8}*", "c" * 8]
    assert note.startswith("* interrupted")
    ends = {line.index(f" {made} ") + len(made) for line, made in zip(lines, ("10,000,000", "10", "500"), strict=True)}
    assert len(ends) == 1, "figures are aligned to the right"
    assert all(len(line) <= 80 and "…" not in line for line in (header, *lines))


def test_a_recipe_is_shown_in_words_and_as_the_options_that_name_it(capsys):
    recipe = Recipe(width=512, height=256, fit="cover", upscale=False, background="#ff0000")
    info = ManifestInfo(rows=1, run_id="r", run_file="r.parquet", recipe=recipe, recipe_id="x", columns="")
    print_status(Status(info, {"ok": 1}))
    printed = capsys.readouterr().out.splitlines()
    assert "recipe    512 × 256 pixels, cover, rgb, jpeg" in printed
    assert "options   --width 512 --height 256 --fit cover --no-upscale --background '#ff0000'" in printed


def test_run_files_that_cannot_be_read_are_named(capsys):
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
        source="/s", destination="/dest", run_id="r", ok=1, failed=1, first_failures=(failure,), preview=True,
        known_failed=1, pictures=("/dest/contact-sheet.jpg",),
    )  # fmt: skip
    print_report(report, "page")
    headline, *lines = capsys.readouterr().out.splitlines()
    assert headline.startswith("Preview: 1 made, 1 failed")
    assert lines == [
        "a�.jpg: decode.corrupt: no",
        "list      darkroom failures /dest",
        "picture   /dest/contact-sheet.jpg",
        "outputs   /dest/images/",
        "Nothing was published; run without --limit.",
    ]


def test_skipped_files_are_printed_by_suffix_with_the_options_that_list_them(capsys):
    report = RunReport(
        source="/s", destination="/d", run_id="r", skipped={"not_image": 3, "outside": 1}, not_images={"": 2, "txt": 1}
    )
    print_report(report, "page")
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert ["skipped", "3 not image (2 without suffix, 1 .txt), 1 outside"] in lines
    assert [text.split()[0] for label, text in lines if label == "hint"] == ["--follow-symlinks", "--by-content"]


def test_folders_that_could_not_be_listed_are_named(capsys):
    report = RunReport(source="/s", destination="/d", run_id="r", unreadable_folders=("", "raw/a\n", *"bcdefghijk"))
    print_report(report, "page")
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert [text for label, text in lines if label == "unreadable"] == [".", "raw/a�", *"bcdefghi"]
    assert ["and", "2 more that can't be read"] in lines


@pytest.mark.parametrize(
    ("images", "line"),
    [
        (0, "resume    2 interrupted runs, without a finished image"),
        (1, "resume    1 image of 2 interrupted runs is safe: the next run goes on from there"),
        (9, "resume    9 images of 2 interrupted runs are safe: the next run goes on from there"),
    ],
)
def test_interrupted_runs_are_counted_with_what_they_finished(images, line, capsys):
    print_unfinished(Unfinished(2, images))
    assert capsys.readouterr().out == f"{line}\n"


@pytest.mark.parametrize("is_published", [True, False], ids=["published", "nothing to do"])
def test_a_run_that_adopts_lists_what_failed_in_the_interrupted_run(place, capsys, is_published):
    known = [*(f"{number}.jpg" for number in range(12)), "own.jpg"]
    publish_rows(place, [failed_row(path, "source.empty", error_message="m") for path in known])
    own = FailedImage(source_path="own.jpg", error_code="source.empty", error_message="m")
    counts = {"published": is_published, "adopted": 12, "failed": 1, "known": 13, "known_failed": 13}
    report = RunReport(source="/s", destination=str(place.root), run_id="r", first_failures=[own], **counts)
    print_report(report, "page")
    *_, first = (printed := capsys.readouterr().out).partition("own.jpg: source.empty: m\n")
    assert printed.count(": source.empty: m\n") == 10
    assert first.splitlines()[0] == "0.jpg: source.empty: m"
    assert first.splitlines()[-1] == f"list      darkroom failures {place.root} (all 13)"
    os.remove(place.root / "manifest.parquet")
    print_report(report, "page")
    assert "own.jpg: source.empty: m\n" in capsys.readouterr().out


def test_many_error_codes_are_wrapped(capsys):
    codes = dict.fromkeys(("decode.truncated", "decode.corrupt", "decode.unsupported", "source.not_found"), 1_000)
    print_report(RunReport(source="/s", destination="/d", run_id="r", error_codes=codes), "page")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:3] == [
        "failures  1,000 × decode.truncated, 1,000 × decode.corrupt,",
        "          1,000 × decode.unsupported, 1,000 × source.not_found",
    ]


def test_failures_name_options(capsys):
    failure = FailedImage(source_path="`max_pixels`.png", error_code="x", error_message="over 9 (`max_pixels`)")
    print_failed([failure])
    assert capsys.readouterr().out == "`max_pixels`.png: x: over 9 (--max-pixels)\n"


def test_the_lease_is_shown_in_80_columns_with_the_whole_run_id(capsys):
    print_status(
        Status(None, lease=Lease(run_id="1" * 36, host="machine", pid=4_000_000, process="x", since=0.0, heartbeat=0.0))
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == [
        f"lease     left behind by run {'1' * 36}",
        "          on machine (process 4000000) since 1970-01-01 00:00:00 UTC",
    ]


def test_a_run_ends_with_the_first_ten_failures_and_the_command_that_lists_all(capsys):
    failed = tuple(FailedImage(source_path=f"{n}.jpg", error_code="source.empty", error_message="m") for n in range(12))
    report = RunReport(
        source="/s", destination="/my data", run_id="r", failed=12, known=12, known_failed=12, first_failures=failed
    )
    print_report(report, "page")
    assert capsys.readouterr().out.splitlines()[-11:] == [
        *(f"{number}.jpg: source.empty: m" for number in range(10)),
        "list      darkroom failures '/my data' (all 12)",
    ]
