import pytest

from darkroom.tasks.publish import publish
from darkroom.tasks.recover import close_workspace
from darkroom.tasks.reporting.figures import FAILURES_SHOWN, read_failures, read_figures
from tests.places import destination_at
from tests.tasks.helpers import after, failed_row, make_job, open_workspace, publish_rows, row, write_journal


def published(place, rows):
    """Publish a run with these rows; return its workspace and job."""
    job = make_job(place)
    workspace = open_workspace(place, job)
    write_journal(workspace, rows)
    publish(workspace, job, ended=True)
    return workspace, job


@pytest.mark.parametrize("name", ["dest", "[a]*?'", "status=ok"])
def test_figures_are_those_of_the_run_and_the_manifest(tmp_path, name):
    place = destination_at(tmp_path / name)
    publish_rows(place, [row("known.jpg"), failed_row("bad.jpg", "decode.corrupt")], run_id="before")
    rows = [
        row("a.jpg", decode_ms=100.0, output_bytes=7),
        row("b.jpg"),
        row("known.jpg", status="unchanged", file_name=None, output_bytes=None),
        failed_row("f1.jpg", "decode.corrupt", decode_ms=None),
        failed_row("f2.jpg", "decode.corrupt"),
        failed_row("f3.jpg", "source.denied", source_size=None),
    ]
    figures = read_figures(*published(place, rows))
    assert (figures.ok, figures.failed, figures.touched) == (2, 3, 1)
    assert (figures.known, figures.known_failed) == (7, 4)
    assert (figures.source_bytes, figures.output_bytes) == (5000, 17)
    assert list(figures.error_codes.items()) == [("decode.corrupt", 2), ("source.denied", 1)]
    assert [failure.source_path for failure in figures.first_failures] == ["f1.jpg", "f2.jpg", "f3.jpg"]
    assert [image.source_path for image in figures.slowest] == ["a.jpg", "b.jpg"]
    assert (figures.slowest[0].ms, figures.slowest[0].megapixels) == (113.0, 0.0012)
    assert [(times.stage, times.p50, times.max) for times in figures.stages][1] == ("decode", 2.0, 100.0)


def test_failures_are_those_of_a_runs_last_attempt(place):
    assert read_failures(place, "run") == (0, {}, 0)
    for rows in (
        [
            row("a.jpg", attempts=2),
            failed_row("b.jpg", "source.denied"),
            failed_row("c.jpg", "decode.corrupt"),
            failed_row("d.jpg", "source.denied", attempts=1),
            failed_row("e.jpg", "source.denied", attempts=2),
        ],
        [
            row("b.jpg", processed_at=after(9)),
            failed_row("d.jpg", "source.denied", attempts=2, processed_at=after(9)),
            failed_row("e.jpg", "source.denied", attempts=3, processed_at=after(9)),
        ],
    ):
        workspace, _ = published(place, rows)
        close_workspace(workspace)
    assert len(list(place.runs.iterdir())) == 2
    assert read_failures(place, "run") == (4, {"decode.corrupt": 1, "source.denied": 1}, 1)


def test_images_that_failed_in_an_earlier_run_too_are_counted_separately(place):
    again = [failed_row(f"{number}.jpg", "source.denied", attempts=3) for number in range(2)]
    published(place, [*again, row("a.jpg", attempts=2), failed_row("b.jpg", "source.denied", attempts=1)])
    assert read_failures(place, "run") == (2, {"source.denied": 1}, 2)


def test_failures_without_a_message_and_more_than_can_be_shown(place):
    rows = [failed_row(f"{number}.jpg", "decode.corrupt", error_message=None) for number in range(FAILURES_SHOWN + 5)]
    figures = read_figures(*published(place, rows))
    assert (len(figures.first_failures), figures.failed, figures.stages) == (FAILURES_SHOWN, FAILURES_SHOWN + 5, ())
    assert figures.first_failures[0].error_message == ""
