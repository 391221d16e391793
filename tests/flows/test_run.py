"""A run's report is built from what its stages returned, as far as it got."""

from darkroom.flows.run import Run, absolute
from darkroom.flows.runtime.progress import Progress
from darkroom.tasks.discover import Listing
from darkroom.tasks.plan import Plan
from darkroom.tasks.recover import Recovered
from darkroom.tasks.reporting.figures import Figures
from darkroom.tasks.resize import ShardResult
from darkroom.tasks.settings import Compute, Recipe, Rules
from darkroom.tasks.storage.store import Skipped


def planned_run(**rules):
    run = Run("/source", "/dest", Recipe(), Rules(**rules), Compute(), run_id="r")
    run.recovered = Recovered(images=3, damaged_parts=1)
    run.listing = Listing(12, 99, Skipped(unreadable=["x"]))
    run.listing.skipped.counts["hidden"] += 3
    run.plan = Plan((10,), {"new": 4, "changed": 6}, deleted=1, adopted=3, unchanged=2, known=9, known_failed=2)
    return run


def test_a_run_that_failed_before_its_plan_reports_only_the_reason():
    report = Run("/source", "/dest", Recipe(), Rules(), Compute(), run_id="r").build_report("no permission")
    assert (report.planned, report.published, report.problems) == (False, False, ("no permission",))
    assert (report.known, report.work_seconds, report.preview) == (0, 0.0, False)


def test_a_run_that_failed_after_its_plan_reports_what_was_planned():
    run = planned_run()
    run.progress = Progress[ShardResult](10, failures=["Shard 1 was lost."])
    run.problems.append("Stopped early.")
    report = run.build_report("The scheduler was lost.")
    assert report.planned
    assert (report.unchanged, report.deleted, report.known, report.known_failed) == (2, 1, 9, 2)
    assert (report.skipped, report.unreadable_folders) == ({"hidden": 3}, ("x",))
    assert (report.adopted, report.damaged_parts) == (3, 1)
    assert report.problems == ("Shard 1 was lost.", "Stopped early.", "The scheduler was lost.")
    assert not report.succeeded
    assert report.work_seconds > 0


def test_figures_of_the_published_manifest_replace_the_planned_ones():
    run = planned_run(limit=10)
    run.figures = Figures(ok=9, failed=1, known=18, known_failed=3, error_codes={"decode.corrupt": 1})
    report = run.build_report()
    assert (report.published, report.preview, report.succeeded) == (True, True, True)
    assert (report.ok, report.failed, report.known, report.known_failed) == (9, 1, 18, 3)
    assert report.reasons == {"new": 4, "changed": 6}


def test_a_location_that_has_no_path_stays_as_it_is():
    assert absolute("s3://bucket/out") == "s3://bucket/out"
    assert absolute("/data/../photos") == "/photos"
