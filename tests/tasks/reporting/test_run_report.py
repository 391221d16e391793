import pytest
from pydantic import ValidationError

from darkroom.tasks.reporting.figures import Failures
from darkroom.tasks.reporting.run_report import RunReport, failure_problems
from tests.tasks.helpers import failed_row, publish_rows, row


def report(**figures):
    return RunReport(source="/source", destination="/dest", run_id="r", **figures)


def test_the_headline_of_a_run_with_nothing_to_do():
    assert report(unchanged=1234).headline() == "Nothing to do: 1,234 images unchanged."
    assert report(unchanged=1234).title() == "Nothing to do: 1,234 images unchanged."


def test_adopted_images_are_not_counted_as_unchanged():
    assert report(ok=5, unchanged=3, adopted=7).headline() == "5 made, 0 failed, 7 adopted, 3 unchanged"
    assert report(unchanged=3, adopted=7).headline() == "Nothing to do: 7 images adopted, 3 unchanged."


@pytest.mark.parametrize(
    ("figures", "headline"),
    [
        ({}, "Stopped: nothing was lost. The next run, or a retry of this one, goes on from there."),
        (
            {"to_do": 2000, "kept": 1200},
            "Stopped: 1,200 of 2,000 images are finished and kept. The next run, or a retry of this one, goes on from "
            "there.",
        ),
        (
            {"to_do": 9, "published": True, "ok": 7, "failed": 2},
            "Stopped after the manifest was published: 7 made, 2 failed.",
        ),
    ],
)
def test_an_interrupted_run_says_what_is_kept(figures, headline):
    assert report(interrupted=True, **figures).headline() == headline


def test_the_headline_of_a_preview():
    assert report(ok=2, failed=1, preview=True).headline() == "Preview: 2 made, 1 failed, 0 unchanged"


@pytest.mark.parametrize(
    ("failed", "ok", "ratio", "problem"),
    [(1, 9, 0.1, False), (2, 9, 0.1, True), (0, 0, 0.0, False), (1, 1000, 0.0, True), (5, 0, 1.0, False)],
)
def test_too_many_failures_are_a_problem(failed, ok, ratio, problem):
    failures = Failures(ok + failed, {"decode.corrupt": failed})
    problems = failure_problems(failures, 0, ratio)
    assert bool(problems) is problem
    if problem:
        assert f"{failed} × decode.corrupt" in problems[0]
        assert f"`max_failure_ratio={ratio:g}`" in problems[0]
        sufficient = float(problems[0].rpartition("=")[2].rstrip("`."))
        assert not failure_problems(failures, 0, sufficient)


@pytest.mark.parametrize(("again", "problem"), [(10, False), (11, True)])
def test_images_that_failed_before_are_compared_with_all_known_images(again, problem):
    problems = failure_problems(Failures(3, {}, again), 100, 0.1)
    assert bool(problems) is problem
    if problem:
        assert problems[0].startswith("11 of 100 known images failed again")


def test_a_failed_run_is_titled_by_its_reason():
    problems = ("2 of 5 (decode.corrupt, /a.b) failed. The manifest is there.", "Second. Reason.")
    failed = report(ok=3, problems=problems)
    assert failed.title() == "Failed: 2 of 5 (decode.corrupt, /a.b) failed."
    assert failed.failure() == "\n".join(problems)


def test_a_report_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        report(ok=3).ok = 4


def test_a_report_has_the_manifest_and_its_failures(place):
    publish_rows(place, [row("a.jpg"), failed_row("c.jpg", "source.empty"), failed_row("b.jpg", "decode.corrupt")])
    of_place = RunReport(source="/source", destination=str(place.root), run_id="r")
    assert of_place.manifest == str(place.manifest)
    assert [image.source_path for image in of_place.failures()] == ["b.jpg", "c.jpg"]


def test_a_printed_report_is_a_short_summary():
    made = report(ok=3, failed=1, known=4, error_codes={"source.empty": 1}, problems=["Too many failed."])
    assert str(made).splitlines() == [
        "3 made, 1 failed, 0 unchanged",
        "failures: 1 × source.empty",
        "manifest: /dest/manifest.parquet",
        "Too many failed.",
    ]
    assert str(report(unchanged=1)).splitlines()[0] == "Nothing to do: 1 image unchanged."
