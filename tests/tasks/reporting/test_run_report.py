import pytest

from darkroom.tasks.discover import Listing
from darkroom.tasks.plan import Plan, Shard
from darkroom.tasks.reporting.run_report import PROBLEMS_TOLD, Failures, RunReport, enough, first_sentence
from darkroom.tasks.storage.store import Skipped


def report(**figures):
    return RunReport(source="/source", destination="/dest", run_id="r", **figures)


def test_a_run_with_nothing_to_do_says_so():
    assert report(unchanged=1234).headline() == "Nothing to do: 1,234 images unchanged."
    assert report(unchanged=1234).title() == "Nothing to do: 1,234 images unchanged."


@pytest.mark.parametrize(
    ("failed", "ok", "ratio", "problem"),
    [(1, 9, 0.1, False), (2, 9, 0.1, True), (0, 0, 0.0, False), (1, 1000, 0.0, True), (5, 0, 1.0, False)],
)
def test_too_many_failures_are_a_problem(failed, ok, ratio, problem):
    checked = report()
    failures = Failures(ok + failed, {"decode.corrupt": failed})
    checked.check_failures(failures, ratio)
    assert bool(checked.problems) is problem
    if problem:
        assert f"{failed} × decode.corrupt" in checked.problems[0]
        assert f"max_failure_ratio = {ratio:g}" in checked.problems[0]
        said = float(checked.problems[0].partition("max_failure_ratio of ")[2].partition(" ")[0])
        checked.problems.clear()
        checked.check_failures(failures, said)
        assert not checked.problems, "what the message says must be enough"


@pytest.mark.parametrize(("again", "problem"), [(10, False), (11, True)])
def test_what_fails_night_after_night_is_held_against_all_that_is_known(again, problem):
    checked = report(known=100)
    checked.check_failures(Failures(3, {}, again), 0.1)
    assert bool(checked.problems) is problem
    if problem:
        assert checked.problems[0].startswith("11 of 100 known images failed again")


@pytest.mark.parametrize(
    ("ratio", "said"),
    [(20 / 26, "0.77 or more"), (0.29, "0.29 or more"), (0.2001, "0.21 or more"), (0.999, "1"), (1, "1")],
)
def test_a_limit_that_would_have_been_enough(ratio, said):
    assert enough(ratio) == said


def test_what_was_found_and_planned_is_taken_over():
    listing = Listing(12, 99, Skipped(unreadable=["x"]))
    listing.skipped.counts["hidden"] += 3
    plan = Plan((Shard(0, 10, 99),), {"new": 4, "changed": 6}, deleted=1, unchanged=2, known=9)
    taken = report()
    assert not taken.planned
    taken.take_plan(listing, plan)
    assert taken.planned
    assert (taken.unchanged, taken.deleted, taken.known, taken.skipped) == (2, 1, 9, {"hidden": 3})
    assert taken.unreadable_folders == ["x"]
    assert taken.describe_plan(1) == "10 images to process (4 new, 6 changed) in 1 shards; 2 unchanged, 1 to delete"


def test_a_failed_run_is_titled_by_its_reason():
    failed = report(ok=3, problems=["2 of 5 (decode.corrupt, /a.b) failed. The manifest is there.", "Second. Reason."])
    assert failed.title() == "Failed: 2 of 5 (decode.corrupt, /a.b) failed."
    assert failed.failure() == "\n".join(failed.problems)


def test_a_state_message_names_only_so_many_problems():
    many = report(problems=[f"Shard {number} could not be worked." for number in range(2000)])
    lines = many.failure().split("\n")
    assert len(lines) == PROBLEMS_TOLD + 1
    assert lines[0] == "Shard 0 could not be worked."
    assert "1,995 more" in lines[-1]


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("One. Two. Three.", ("One.", "Two. Three.")),
        ("one 0.5, v. small and a.b.C.", ("one 0.5, v. small and a.b.C.", "")),
        ("Is it?\nYes", ("Is it?", "Yes")),
        ("", ("", "")),
    ],
)
def test_the_first_sentence(text, split):
    assert first_sentence(text) == split
