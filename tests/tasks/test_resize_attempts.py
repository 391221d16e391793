"""Attempts at a shard: later ones, those that were replaced, and those whose run has ended."""

import itertools
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from darkroom.tasks import plan as plan_module
from darkroom.tasks.dataset import journal
from darkroom.tasks.dataset.claim import ReplacedError
from darkroom.tasks.errors import DarkroomError
from darkroom.tasks.publish import publish
from darkroom.tasks.recover import close_workspace
from darkroom.tasks.resize import work_shard
from darkroom.tasks.worker import pipeline
from darkroom.tasks.worker.codec import Codec, thread_codec
from tests.contents import files
from tests.places import disk
from tests.tasks.helpers import destination_in, journal_rows, manifest_rows, prepare, write_image
from tests.tasks.shards import die_before_journalling, run, shard_of, work, write_bmp, write_flat, wrong_outputs


class KilledError(BaseException):
    """Simulates the death of the process: the code for failed images does not catch it."""


def call_before_each_image(monkeypatch, action):
    """Submit images to the codec process one by one; before each, call an action with its number, from 1."""
    submit, numbers = Codec.submit, itertools.count(1)

    def submit_one(codec, batch, orders):
        action(next(numbers))
        submit(codec, batch, orders)

    monkeypatch.setattr(pipeline, "BATCH_IMAGES", 1)
    monkeypatch.setattr(Codec, "submit", submit_one)


def test_a_second_attempt_processes_only_the_remaining_images(source, place, monkeypatch):
    for number in range(6):
        write_image(source / f"{number}.jpg", seed=number)
    workspace, _, plan = prepare(source, place)
    numbers = []

    def die_at_the_fourth(number):
        numbers.append(number)
        if number == 4:
            raise KilledError

    call_before_each_image(monkeypatch, die_at_the_fourth)
    with pytest.raises(KilledError):
        work_shard(shard_of(place, plan))
    finished = len(journal_rows(workspace))
    assert finished <= 3
    result = work_shard(shard_of(place, plan, attempt=2))
    assert (result.resumed, result.ok) == (finished, 6 - finished)
    rows = journal_rows(workspace)
    assert sorted(row["source_path"] for row in rows) == [f"{number}.jpg" for number in range(6)]
    again = work_shard(shard_of(place, plan, attempt=3))
    assert (again.resumed, again.ok) == (6, 0)
    assert journal_rows(workspace) == rows
    assert len(numbers) == 4 + 6 - finished


@pytest.mark.parametrize("time", [10**18, 2 * 10**18])
def test_a_source_restored_between_two_attempts_has_the_right_outputs(source, place, monkeypatch, time):
    for name in "abc":
        write_flat(source / f"{name}.bmp", 10)
    run(source, place)
    for name in "abc":
        write_bmp(source / f"{name}.bmp", 200)
    _, job, plan = die_before_journalling(monkeypatch, source, place, run_id="next")
    assert len(wrong_outputs(place)) == 3
    for name in "abc":
        write_flat(source / f"{name}.bmp", 10)
        os.utime(source / f"{name}.bmp", ns=(0, time))
    workspace = place.workspace("next")
    work_shard(shard_of(place, plan, run_id="next", attempt=2))
    publish(workspace, job, ended=True)
    close_workspace(workspace)
    assert wrong_outputs(place) == set()
    assert len(files(place.images)) == 3


def test_a_second_attempt_keeps_outputs_that_are_still_right(source, place, monkeypatch, submitted):
    for name in "abc":
        write_flat(source / f"{name}.bmp", 10)
    run(source, place)
    written = {path: path.stat().st_mtime_ns for path in place.images.iterdir()}
    for name in "abc":
        os.utime(source / f"{name}.bmp", ns=(0, 2 * 10**18))
    _, _, plan = die_before_journalling(monkeypatch, source, place, run_id="next")
    submitted.clear()
    result = work_shard(shard_of(place, plan, run_id="next", attempt=2))
    assert (result.unchanged, submitted) == (3, [])
    assert {path: path.stat().st_mtime_ns for path in place.images.iterdir()} == written


def test_an_image_that_fails_loses_the_output_of_an_earlier_attempt(source, place, monkeypatch):
    write_flat(source / "a.bmp", 10)
    write_flat(source / "new.bmp", 10)
    run(source, place)
    for name in ("a.bmp", "b.bmp"):
        write_bmp(source / name, 200)
    workspace, job, plan = die_before_journalling(monkeypatch, source, place, run_id="next")
    assert wrong_outputs(place) == {"images/a.bmp.jpg", "images/b.bmp.jpg"}
    (source / "a.bmp").unlink()
    (source / "b.bmp").write_bytes(b"no image")
    work_shard(shard_of(place, plan, run_id="next", attempt=2))
    publish(workspace, job, ended=True)
    close_workspace(workspace)
    rows = manifest_rows(place)
    assert (rows["a.bmp"]["error_code"], rows["b.bmp"]["error_code"]) == ("source.not_found", "decode.unknown_format")
    assert set(files(place.images)) == {"new.bmp.jpg"}


def test_images_in_the_journal_of_an_earlier_attempt_are_not_processed_again(source, place):
    for number in range(3):
        write_image(source / f"{number}.jpg", seed=number)
    rows, _ = work(source, place)
    workspace = place.workspace("run")
    made = files(place.images)
    for path in place.images.iterdir():
        path.unlink()
    (source / "1.jpg").unlink()
    plan = plan_module.Plan((3,))
    result = work_shard(shard_of(place, plan, attempt=2))
    assert (result.resumed, result.failed, result.ok) == (3, 0, 0)
    assert files(place.images) == {}
    assert len(made) == len(rows) == len(journal_rows(workspace))


def test_a_worker_whose_run_has_ended_stops_writing(source, place, monkeypatch):
    for number in range(100):
        write_image(source / f"{number:03d}.jpg", seed=number)
    workspace, _, plan = prepare(source, place)
    made = []

    def end_the_run_at_the_fiftieth(number):
        made.append(number)
        if number == 50:
            close_workspace(workspace)

    call_before_each_image(monkeypatch, end_the_run_at_the_fiftieth)
    with pytest.raises(DarkroomError, match="Run run has ended"):
        work_shard(shard_of(place, plan))
    assert len(made) < 100
    assert len(files(place.images)) <= 50, "only images that were finished by then"
    assert not disk(workspace, "path").exists()


def test_a_replaced_attempt_stops_writing_and_each_image_is_journalled_once(source, place, tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "FLUSH_SECONDS", 0.0)
    for number in range(100):
        write_image(source / f"{number:03d}.jpg", seed=number)
    workspace, job, plan = prepare(source, place)
    made, later = [], []

    def replace_at_the_fiftieth(number):
        made.append(number)
        if number == 50:
            with ThreadPoolExecutor(1) as other:  # each thread has a codec process of its own
                later.append(other.submit(work_shard, shard_of(place, plan, attempt=2)).result())
                other.submit(lambda: thread_codec().close()).result()

    call_before_each_image(monkeypatch, replace_at_the_fiftieth)
    with pytest.raises(ReplacedError, match="has given shard 1 to another worker"):
        work_shard(shard_of(place, plan))
    [result] = later
    assert result.ok + result.resumed == 100
    assert result.resumed > 0
    assert len(made) < 50 + result.ok + 50, "the first attempt stopped before its end"
    assert len(journal_rows(workspace)) == 100
    with pytest.raises(ReplacedError):
        work_shard(shard_of(place, plan))
    publish(workspace, job, ended=True)
    close_workspace(workspace)
    run(source, undisturbed := destination_in(tmp_path / "undisturbed"))
    assert files(place.images) == files(undisturbed.images)
