"""Wherever a run dies, the next one ends in the state of a run that was never interrupted."""

import itertools
import shutil
from contextlib import suppress

import pyarrow.parquet as pq
import pytest

from darkroom.tasks.dataset.layout import Destination
from darkroom.tasks.dataset.manifest import read_record
from darkroom.tasks.errors import DarkroomError
from darkroom.tasks.publish import publish
from darkroom.tasks.recover import Recovered, close_workspace, recover
from darkroom.tasks.storage.store_errors import Failed, StorageError
from tests.contents import files, flip_bit
from tests.places import disk
from tests.tasks.helpers import (
    Killed,
    Killer,
    after,
    convert_to_version_1,
    destination_in,
    failed_row,
    make_job,
    manifest_rows,
    open_workspace,
    parts_of,
    publish_rows,
    row,
    write_deleted,
    write_journal,
    write_output,
)
from tests.tasks.storage.memory import MemoryStore

CHANGES = ("replace", "unlink", "rmdir")


def begin(place):
    """Publish six images, and begin a second run; return its workspace and job once all its work is journalled."""
    publish_rows(place, [row(f"{letter}/{letter}.jpg") for letter in "abcdef"], run_id="first")
    job = make_job(place, run_id="second")
    workspace = open_workspace(place, job)
    write_journal(workspace, [row("a/a.jpg", width=5, run_id="second"), row("new.jpg", run_id="second")])
    write_output(place, "images/a/a.jpg", b"made again")
    write_output(place, "images/new.jpg")
    failure = failed_row("b/b.jpg", "decode.corrupt", run_id="second")
    touched = row("c/c.jpg", status="unchanged", source_mtime=after(9), run_id="second")
    write_journal(workspace, [failure, touched], shard=1)
    write_deleted(workspace, ["d/d.jpg", "e/e.jpg"])
    return workspace, job


def finish(workspace, job):
    publish(workspace, job, ended=True)
    close_workspace(workspace)


def next_run(place):
    """Do what the next run does: adopt the work of the unfinished run, and delete images that it did not delete."""
    recover(place)
    if gone := manifest_rows(place).keys() & {"d/d.jpg", "e/e.jpg"}:
        job = make_job(place, run_id="third")
        workspace = open_workspace(place, job)
        write_deleted(workspace, sorted(gone))
        finish(workspace, job)


def state(place):
    recorded = {
        path.name: pq.read_table(path).to_pylist() for path in place.runs.iterdir() if path.name != "third.parquet"
    }
    return manifest_rows(place), files(place.images), recorded, list(place.workspaces())


@pytest.fixture
def undisturbed(tmp_path):
    place = destination_in(tmp_path / "undisturbed")
    finish(*begin(place))
    return state(place)


def test_the_state_that_an_undisturbed_run_leaves(undisturbed):
    rows, images, recorded, left = undisturbed
    assert list(rows) == ["a/a.jpg", "b/b.jpg", "c/c.jpg", "f/f.jpg", "new.jpg"]
    assert images == {
        "a/a.jpg": b"made again",
        "c/c.jpg": b"0123456789",
        "f/f.jpg": b"0123456789",
        "new.jpg": b"0123456789",
    }
    assert {name: len(rows) for name, rows in recorded.items()} == {"first.parquet": 6, "second.parquet": 4}
    assert left == []


def test_a_run_that_died_before_it_could_publish_is_adopted(place, undisturbed):
    begin(place)
    assert recover(place) == Recovered(images=4)
    assert {"d/d.jpg", "e/e.jpg"} <= manifest_rows(place).keys()  # only a run that has just listed the source deletes
    next_run(place)
    assert state(place) == undisturbed


def die_before_each_change(tmp_path, prepared, action):
    """Let an action die before its first change, before its second, and so on, each time on a copy of a destination.

    Yield each copy after the death.
    """
    for deaths in itertools.count(1):
        place = destination_in(tmp_path / str(deaths))
        shutil.copytree(prepared.root, place.root, dirs_exist_ok=True)
        with pytest.MonkeyPatch.context() as patch:
            Killer(patch, deaths, *CHANGES)
            try:
                action(place)
            except Killed:
                yield place
            else:
                assert deaths > 10
                return


def test_wherever_the_end_of_a_run_is_interrupted_the_next_run_ends_in_the_same_state(tmp_path, place, undisturbed):
    _, job = begin(place)
    for left in die_before_each_change(tmp_path, place, lambda copy: finish(copy.workspace("second"), job)):
        next_run(left)
        assert state(left) == undisturbed, left


def test_wherever_a_recovery_is_interrupted_the_next_one_ends_in_the_same_state(tmp_path, place, undisturbed):
    workspace, job = begin(place)
    publish(workspace, job, ended=True)  # and then dies
    for left in die_before_each_change(tmp_path, place, recover):
        next_run(left)
        assert state(left) == undisturbed, left


@pytest.mark.parametrize("answer_lost", [False, True])
def test_whichever_request_fails_the_next_run_ends_in_the_same_state(answer_lost):
    prepared = Destination(MemoryStore())
    _, job = begin(prepared)
    ends, failures = [], itertools.count()
    for failure in failures:
        place = Destination(MemoryStore())
        place.store.objects = dict(prepared.store.objects)
        place.store.fail("", Failed, after=answer_lost, wait=failure)
        with suppress(StorageError, DarkroomError):
            finish(place.workspace("second"), job)
            if len(place.store.calls) <= failure:
                break
        next_run(place)
        images = {path: data for path, (data, _) in place.store.objects.items() if path.startswith("images/")}
        ends.append((manifest_rows(place), images, place.workspaces()))
    assert len(ends) > 25
    assert all(end == ends[0] for end in ends)
    assert list(ends[0][0]) == ["a/a.jpg", "b/b.jpg", "c/c.jpg", "f/f.jpg", "new.jpg"]


def test_a_stopped_run_deletes_nothing_wherever_it_is_interrupted(tmp_path, place):
    publish_rows(place, [row("a.jpg"), row("b.jpg")], run_id="first")
    rows, images = manifest_rows(place), files(place.images)
    job = make_job(place, run_id="second")
    workspace = open_workspace(place, job)
    write_journal(workspace, [failed_row("a.jpg", "decode.corrupt", run_id="second")])
    write_deleted(workspace, ["b.jpg"])
    disk(workspace, "stopped").touch()
    for left in die_before_each_change(tmp_path, place, lambda copy: finish(copy.workspace("second"), job)):
        recover(left)
        assert (manifest_rows(left), files(left.images)) == (rows, images)
        [recorded] = pq.read_table(left.runs / "second.parquet").to_pylist()
        assert (recorded["status"], recorded["warnings"]) == ("failed", ["output_kept"])


def recorded_deletions(place):
    return sum(read_record(place.store, path)[1].deleted for path in place.run_files())


@pytest.mark.parametrize("recovered", [False, True])
def test_wherever_a_run_is_interrupted_each_deletion_is_recorded_once(tmp_path, place, recovered):
    workspace, job = begin(place)
    if recovered:
        publish(workspace, job, ended=True)  # and then dies
    action = recover if recovered else lambda copy: finish(copy.workspace("second"), job)
    for left in die_before_each_change(tmp_path, place, action):
        next_run(left)
        assert recorded_deletions(left) == 2, left
        had_published = not (left.runs / "third.parquet").exists()
        assert (read_record(left.store, "runs/second.parquet")[1].seconds is not None) == had_published


def test_a_run_that_was_interrupted_before_it_deleted_anything_leaves_no_run_file(place, monkeypatch):
    publish_rows(place, [row("a.jpg"), row("b.jpg")], run_id="first")
    job = make_job(place, run_id="second")
    workspace = open_workspace(place, job)
    write_deleted(workspace, ["a.jpg"])
    with monkeypatch.context() as patch, pytest.raises(Killed):
        Killer(patch, 2, *CHANGES)
        publish(workspace, job, ended=True)
    assert read_record(place.store, "runs/second.parquet")[1].deleted == 1
    recover(place)
    assert [path.name for path in place.runs.iterdir()] == ["first.parquet"]
    assert list(manifest_rows(place)) == ["a.jpg", "b.jpg"]


def test_a_run_that_was_interrupted_after_it_deleted_keeps_its_run_file(place):
    publish_rows(place, [row("a.jpg"), row("b.jpg")], run_id="first")
    job = make_job(place, run_id="second")
    workspace = open_workspace(place, job)
    write_deleted(workspace, ["a.jpg"])
    publish(workspace, job, ended=True)  # and then dies
    recover(place)
    assert recorded_deletions(place) == 1


@pytest.mark.parametrize("also_manifest", [False, True])
def test_the_work_of_an_earlier_version_is_adopted(place, undisturbed, also_manifest):
    workspace, _ = begin(place)
    for part in [*parts_of(workspace), *([place.manifest] if also_manifest else [])]:
        convert_to_version_1(part)
    assert recover(place) == Recovered(images=4)
    next_run(place)
    assert state(place) == undisturbed
    assert pq.read_metadata(place.manifest).metadata[b"schema_version"] == b"2"


def test_of_a_damaged_journal_part_only_its_own_images_are_lost(place):
    workspace, _ = begin(place)
    [part, _] = parts_of(workspace)
    flip_bit(part, part.stat().st_size // 4)

    assert recover(place) == Recovered(images=2, damaged_parts=1)

    rows = manifest_rows(place)
    assert "new.jpg" not in rows
    assert rows["a/a.jpg"]["run_id"] == "first"
    assert rows["b/b.jpg"]["status"] == "failed"
    assert place.workspaces() == []
