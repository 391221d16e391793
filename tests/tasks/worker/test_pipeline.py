"""The order of a shard's rows, limits on what is in flight, and hung reads."""

import os
import threading
import time
from dataclasses import replace

import pytest

from darkroom.tasks.errors import DarkroomError
from darkroom.tasks.imaging.transform import transform
from darkroom.tasks.resize import work_shard
from darkroom.tasks.settings import Recipe, Rules
from darkroom.tasks.storage import local as storage
from darkroom.tasks.worker import pipeline as pipeline_module
from darkroom.tasks.worker.codec import Codec, thread_codec
from darkroom.tasks.worker.images import Images
from darkroom.tasks.worker.pipeline import FAR, IN_FLIGHT_BYTES, NEAR, SUBMITTED, Pipeline
from darkroom.tasks.worker.shared_batch import BATCH_IMAGES, SharedBatch
from tests.poisoned import logged, poison
from tests.tasks.helpers import journal_rows, plan_rows, prepare, write_image
from tests.tasks.shards import shard_of, work


def test_rows_keep_the_order_of_the_plan(source, place, monkeypatch):
    for number in range(40):
        write_image(source / f"{number:02d}.jpg", seed=number)
    for number in range(5, 40, 7):
        (source / f"{number:02d}.jpg").write_bytes(b"bad")
    put = storage.LocalFolder.put

    def put_slowly(folder, path, data, **options):
        time.sleep(0.01 if path < "images/10" else 0)
        return put(folder, path, data, **options)

    monkeypatch.setattr(storage.LocalFolder, "put", put_slowly)
    workspace, _, plan = prepare(source, place)
    work_shard(shard_of(place, plan))
    assert [row["source_path"] for row in journal_rows(workspace)] == sorted(plan_rows(workspace))


def record_in_flight(monkeypatch):
    """Return a list to which each start of a read adds the bytes in flight."""
    in_flight, read = [], Pipeline._read

    def recorded(self, *arguments):
        reading = read(self, *arguments)
        in_flight.append(self._in_flight)
        return reading

    monkeypatch.setattr(Pipeline, "_read", recorded)
    return in_flight


@pytest.mark.parametrize("limit", [1, 4, 64])
def test_bytes_in_flight_are_bounded(source, place, monkeypatch, limit):
    size = 1 << 10
    for number in range(60):
        (source / f"{number:02d}.jpg").write_bytes(bytes(size))
    recipe = Recipe(width=16, height=16)
    each = size + 16 * 16
    in_flight, memories, create = record_in_flight(monkeypatch), [], SharedBatch.create
    monkeypatch.setattr(SharedBatch, "create", lambda: memories.append(1) or create())
    monkeypatch.setattr(Images, "_finish", lambda _, image: time.sleep(0.002) or replace(image.row, status="ok"))
    monkeypatch.setattr(pipeline_module, "IN_FLIGHT_BYTES", limit * each)
    thread_codec().close()
    _, [result] = work(source, place, recipe=recipe)
    assert result.ok == 60
    assert max(in_flight) <= max(limit, BATCH_IMAGES) * each
    assert len(memories) <= min(max(limit // BATCH_IMAGES, 1), 2 * NEAR.batches + SUBMITTED)


@pytest.fixture
def remote(monkeypatch):
    """Treat local folders as buckets."""
    monkeypatch.setattr(storage.LocalFolder, "is_remote", True)


@pytest.mark.parametrize("method", ["read", "finish"])
def test_images_of_a_batch_wait_for_a_bucket_concurrently(source, place, monkeypatch, remote, method):  # noqa: ARG001
    for number in range(2 * BATCH_IMAGES):
        write_image(source / f"{number:02d}.jpg", seed=number)
    together, original = threading.Barrier(BATCH_IMAGES), getattr(Images, method)

    def meet(*arguments):
        together.wait(60)
        return original(*arguments)

    monkeypatch.setattr(Images, method, meet)
    rows, _ = work(source, place)
    for path, row in rows.items():
        assert row["status"] == "ok"
        made = transform((source / path).read_bytes(), Recipe(width=8, height=6), 10**9)
        assert (place.images / path).read_bytes() == made.data
    assert len(rows) == 2 * BATCH_IMAGES


def test_bytes_in_flight_are_bounded_for_a_bucket_too(source, place, monkeypatch, remote):  # noqa: ARG001
    for number in range(60):
        (source / f"{number:02d}.jpg").write_bytes(bytes(1 << 10))
    each, in_flight, kept, trim = (1 << 10) + 16 * 16, record_in_flight(monkeypatch), [], SharedBatch.trim
    monkeypatch.setattr(SharedBatch, "trim", lambda batch, keep: kept.append(keep) or trim(batch, keep))
    monkeypatch.setattr(Images, "_finish", lambda _, image: time.sleep(0.002) or replace(image.row, status="ok"))
    monkeypatch.setattr(pipeline_module, "IN_FLIGHT_BYTES", 3 * BATCH_IMAGES * each)
    _, [result] = work(source, place, recipe=Recipe(width=16, height=16))
    assert result.ok == 60
    assert max(in_flight) == 3 * BATCH_IMAGES * each
    assert set(kept) == {FAR.keep}
    assert FAR.keep * (2 * FAR.batches + SUBMITTED) < 2 * IN_FLIGHT_BYTES


def test_a_hung_read_that_resumes_changes_no_other_image(source, place, monkeypatch):
    for number in range(3 * BATCH_IMAGES):
        write_image(source / f"{number:02d}.jpg", seed=number)
    resume, ended = threading.Event(), threading.Event()
    read_to_end = storage._read_to_end

    def hang(descriptor, view):
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("/03.jpg"):
            resume.wait(60)
            view[:] = b"x" * len(view)
            ended.set()
        return read_to_end(descriptor, view)

    submitted = []
    submit = Codec.submit

    def submit_late(codec, batch, orders):
        submitted.append(batch)
        if len(submitted) == BATCH_IMAGES:  # the first batch's seven other images were submitted before, one by one
            resume.set()
            assert ended.wait(60)
        submit(codec, batch, orders)

    monkeypatch.setattr(storage, "_read_to_end", hang)
    monkeypatch.setattr(Codec, "submit", submit_late)
    rows, _ = work(source, place, rules=Rules(max_read_seconds=0.3))
    assert {path: row["error_code"] for path, row in rows.items() if row["error_code"]} == {"03.jpg": "source.timeout"}
    for path in rows.keys() - {"03.jpg"}:
        made = transform((source / path).read_bytes(), Recipe(width=8, height=6), 10**9)
        assert (place.images / path).read_bytes() == made.data


@pytest.fixture
def parts(monkeypatch):
    """Return a list to which each write adds its number of images."""
    sizes = []
    finish = Images.finish
    monkeypatch.setattr(Images, "finish", lambda self, items: sizes.append(len(items)) or finish(self, items))
    return sizes


def test_large_images_are_submitted_one_by_one(source, place, monkeypatch, parts):
    for number in range(12):
        write_image(source / f"{number:02d}.jpg", seed=number)
    monkeypatch.setattr(pipeline_module, "BATCH_BYTES", 0)
    rows, _ = work(source, place)
    assert (len(rows), parts) == (12, [1] * 12)


def test_outputs_of_slow_images_are_written_before_their_batch_ends(source, place, parts, log):
    for number in range(3):
        (source / f"{number}.jpg").write_bytes(poison("nap", number))
    rows, _ = work(source, place)
    assert (len(rows), parts) == (3, [1] * 3)
    assert [what for what, _ in logged(log)] == ["nap"] * 3


def test_once_a_shard_has_ended_no_more_images_are_read(source, place, monkeypatch):
    for number in range(BATCH_IMAGES):
        write_image(source / f"{number}.jpg")
    resume, begun = threading.Event(), []
    read = Images.read

    def hang(images, planned, batch):
        begun.append(planned.source_path)
        resume.wait(60)
        return read(images, planned, batch)

    monkeypatch.setattr(Images, "read", hang)
    monkeypatch.setattr("darkroom.tasks.worker.readers.MAX_HUNG", 0)
    with pytest.raises(DarkroomError, match="The source does not answer"):
        work(source, place, rules=Rules(max_read_seconds=0.05))
    thread = next(each for each in threading.enumerate() if each.name == "read")
    resume.set()
    thread.join(60)
    assert begun == ["0.jpg"]
