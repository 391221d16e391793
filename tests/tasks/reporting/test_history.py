import os
from datetime import timedelta

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.tasks.dataset.manifest import RunRecord, footer, write_table
from darkroom.tasks.errors import SettingsError
from darkroom.tasks.publish import publish
from darkroom.tasks.recover import close_workspace, recover
from darkroom.tasks.reporting.history import History, bar_heights, read_history
from darkroom.tasks.reporting.status import read_status
from tests.tasks.helpers import (
    NOON,
    after,
    destination_in,
    failed_row,
    make_job,
    open_workspace,
    row,
    unprivileged,
    write_deleted,
    write_journal,
)


def publish_run(place, run_id, rows, *, deleted=(), started=NOON, work_seconds=4.0):
    """Publish a run that was not interrupted; return its run file."""
    job = make_job(place, run_id=run_id).model_copy(update={"started_at": started})
    workspace = open_workspace(place, job)
    if rows:
        write_journal(workspace, [each | {"run_id": run_id} for each in rows])
    if deleted:
        write_deleted(workspace, deleted)
    publish(workspace, job, ended=True, work_seconds=work_seconds)
    close_workspace(workspace)
    return place.runs / job.run_file


def rewrite(file, **metadata):
    """Replace the key-value metadata of a run file."""
    table = pq.read_table(file)
    write_table(file, iter(table.to_batches()), {"schema_version": "1", "run_id": file.stem} | metadata)


def test_a_destination_without_runs_has_no_history(place):
    assert read_history(place) == History()


def test_each_run_has_its_own_figures(place):
    publish_run(
        place, "first", [row("a.jpg", source_size=700, output_bytes=70), row("b.jpg"), failed_row("c.jpg", "decode.x")]
    )
    touched = row("a.jpg", status="unchanged", file_name=None, output_bytes=None, source_size=700)
    publish_run(place, "second", [touched, row("d.jpg")], deleted=["b.jpg"], started=after(60), work_seconds=0.5)
    second, first = read_history(place).runs
    assert (first.run_id, first.started, first.ok, first.failed, first.touched) == ("first", NOON, 2, 1, 0)
    assert (first.source_bytes, first.output_bytes, first.deleted) == (2700, 80, 0)
    assert (first.attempted, first.work_seconds, first.images_per_second) == (3, 4.0, 0.75)
    assert (second.run_id, second.ok, second.touched, second.deleted) == ("second", 1, 1, 1)
    assert (second.started, second.images_per_second) == (after(60), 4.0)
    assert not second.interrupted
    assert second.seconds >= 0


def test_a_run_lasted_until_it_published(place):
    job = make_job(place)
    publish_run(place, "run", [row("a.jpg")], started=job.started_at - timedelta(seconds=100))
    [run] = read_history(place).runs
    assert run.seconds >= 100
    assert run.started == job.started_at - timedelta(seconds=100)


def test_a_run_that_only_deleted_is_listed(place):
    publish_run(place, "first", [row("a.jpg"), row("b.jpg")])
    publish_run(place, "second", [], deleted=["a.jpg"], started=after(60), work_seconds=0.0)
    run = read_history(place).runs[0]
    assert (run.run_id, run.attempted, run.deleted, run.images_per_second) == ("second", 0, 1, 0.0)


def test_an_interrupted_run_lasted_until_its_last_image(place):
    job = make_job(place).model_copy(update={"started_at": NOON})
    workspace = open_workspace(place, job)
    write_journal(workspace, [row("a.jpg", processed_at=after(10)), row("b.jpg", processed_at=after(25), read_ms=None)])
    recover(place)
    [run] = read_history(place).runs
    assert run.interrupted
    assert (run.started, run.seconds) == (NOON, 25.0)
    # The first image took 15 ms.
    assert run.work_seconds == pytest.approx(15.015)


def test_only_the_newest_runs_are_read(place):
    for number in range(5):
        file = publish_run(place, str(number), [row(f"{number}.jpg")], started=after(number))
        if number < 3:
            file.write_bytes(b"xxxx" + file.read_bytes()[4:])
        os.utime(file, (-number, -number))  # as in a copied destination
    history = read_history(place, last=2)
    assert [run.run_id for run in history.runs] == ["4", "3"]
    assert history.unreadable == ()
    assert read_history(place, last=3).unreadable == ("2.parquet",)


def test_damaged_run_files_are_listed_as_unreadable(place):
    whole = publish_run(place, "whole", [row(f"{number}.jpg") for number in range(2000)])
    data = whole.read_bytes()
    (place.runs / "empty.parquet").write_bytes(b"")
    (place.runs / "cut.parquet").write_bytes(data[:-100])
    (place.runs / "inside.parquet").write_bytes(data[:4] + bytes(len(data) // 2) + data[4 + len(data) // 2 :])
    other = place.runs / "other.parquet"
    other.write_bytes(data)
    rewrite(other, schema_version="99")
    odd = place.runs / "odd.parquet"
    odd.write_bytes(data)
    rewrite(odd, run='{"seconds": "long"}')
    (place.runs / "notes.txt").write_text("mine")
    history = read_history(place)
    assert [run.run_id for run in history.runs] == ["whole"]
    assert sorted(history.unreadable) == [f"{name}.parquet" for name in ("cut", "empty", "inside", "odd", "other")]


def test_run_files_without_a_record_are_read(place):
    file = publish_run(place, "old", [row("a.jpg", processed_at=after(1)), row("b.jpg", processed_at=after(3))])
    rewrite(file)
    [run] = read_history(place).runs
    assert (run.run_id, run.ok, run.interrupted) == ("old", 2, False)
    assert run.started == after(1) - timedelta(milliseconds=15)
    assert run.seconds == pytest.approx(2.015)


def test_the_manifest_and_the_run_file_name_each_other(place):
    file = publish_run(place, "run", [row("a.jpg")], work_seconds=2.5)
    written = {key.decode(): value.decode() for key, value in pq.read_metadata(file).metadata.items()}
    record = RunRecord.model_validate_json(written["run"])
    assert (record.started_at, record.work_seconds, record.deleted) == (NOON, 2.5, 0)
    of_manifest = {key.decode(): value.decode() for key, value in pq.read_metadata(place.manifest).metadata.items()}
    assert (written["run_file"], of_manifest["run_file"]) == ("run.parquet", "run.parquet")
    assert "run" not in of_manifest, "times would make two manifests of the same rows differ"
    assert footer(make_job(place, run_id="new")).keys() <= of_manifest.keys()


@given(st.lists(st.one_of(st.integers(0, 10**7), st.floats(0.01, 1e6)), max_size=40))
def test_the_heights_of_bars_follow_their_values(values):
    heights = bar_heights(values)
    assert len(heights) == len(values)
    assert [height == 0 for height in heights] == [value == 0 for value in values]
    assert sorted(heights) == [height for _, height in sorted(zip(values, heights, strict=True))]
    if any(values) and max(values) <= 2 * min(values):
        assert max(heights) == 1


def test_an_outlier_does_not_flatten_the_other_bars():
    first, *rest = bar_heights([1_000_000, *[1000] * 10])
    assert first > 1
    assert set(rest) == {0.2}


def test_a_file_without_read_permission_is_neither_damaged_nor_absent(open_path):
    place = destination_in(open_path)
    publish_run(place, "first", [row("a.jpg")])
    publish_run(place, "second", [row("b.jpg")], started=after(60)).chmod(0)
    with unprivileged():
        history = read_history(place)
    assert ([run.run_id for run in history.runs], history.denied, history.unreadable) == (
        ["first"],
        ("second.parquet",),
        (),
    )
    place.runs.chmod(0o111)
    with unprivileged(), pytest.raises(SettingsError, match=f"{place.runs} can't be read. Grant"):
        read_history(place)
    with unprivileged(), pytest.raises(SettingsError, match=r"runs/second\.parquet can't be read\. Grant"):
        read_status(place)
