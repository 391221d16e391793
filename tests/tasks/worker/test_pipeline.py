import errno
import hashlib
import os
import random
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from darkroom.tasks.errors import ErrorCode, ImageError
from darkroom.tasks.imaging.transform import transform
from darkroom.tasks.resize import work_shard
from darkroom.tasks.settings import Recipe, Rules
from darkroom.tasks.storage import local as storage
from darkroom.tasks.storage.local import LocalFolder
from darkroom.tasks.worker import pipeline as pipeline_module
from darkroom.tasks.worker import retries
from darkroom.tasks.worker.codec import Codec, thread_codec
from darkroom.tasks.worker.images import Images
from darkroom.tasks.worker.pipeline import READ_AHEAD, SUBMITTED, WRITTEN_BEHIND, Pipeline
from darkroom.tasks.worker.retries import FIRST_BACKOFF_SECONDS, TRIES
from darkroom.tasks.worker.shared_batch import IMAGES, SharedBatch
from tests.poisoned import met, poison
from tests.tasks.helpers import destination_in, journal_rows, plan_rows, prepare, unprivileged, write_image
from tests.tasks.shards import shard_of, work


@pytest.fixture
def delays(monkeypatch):
    """The seconds that were waited between tries; none of them is."""
    waited = []
    monkeypatch.setattr(retries.time, "sleep", waited.append)
    return waited


def test_hashes_are_those_of_the_files(source, place):
    write_image(source / "a.jpg")
    rows, _ = work(source, place)
    sha256 = hashlib.sha256
    assert rows["a.jpg"]["source_sha256"] == sha256((source / "a.jpg").read_bytes()).hexdigest()
    assert rows["a.jpg"]["output_sha256"] == sha256((place.images / "a.jpg").read_bytes()).hexdigest()


def test_an_image_that_vanished_since_it_was_listed(source, place, delays):
    write_image(source / "a.jpg")
    write_image(source / "b.jpg")
    workspace, _, plan = prepare(source, place)
    (source / "a.jpg").unlink()
    work_shard(shard_of(place, plan))
    [gone, there] = journal_rows(workspace)
    assert (gone["error_code"], gone["source_sha256"]) == ("source.not_found", None)
    assert gone["source_size"] == plan_rows(workspace)["a.jpg"]["source_size"]
    assert there["status"] == "ok"
    assert delays == []


def test_an_image_that_changed_since_it_was_listed_is_recorded_as_it_was_read(source, place):
    write_image(source / "a.jpg", 10, 10)
    workspace, _, plan = prepare(source, place)
    write_image(source / "a.jpg", 90, 90)
    work_shard(shard_of(place, plan))
    [row] = journal_rows(workspace)
    assert (row["source_width"], row["source_size"]) == (90, (source / "a.jpg").stat().st_size)


def test_an_image_that_may_not_be_read_is_denied_and_one_that_may_not_be_written_too(open_path, delays):
    source, place = open_path / "source", destination_in(open_path)
    write_image(source / "a.jpg")
    write_image(source / "b.jpg")
    workspace, _, plan = prepare(source, place)
    (source / "a.jpg").chmod(0)
    place.images.mkdir()
    for folder in (workspace.root, workspace.journal):
        folder.chmod(0o777)
    place.images.chmod(0o555)
    with unprivileged():
        work_shard(shard_of(place, plan))
    [denied, unwritten] = journal_rows(workspace)
    assert (denied["error_code"], denied["error_stage"]) == ("source.denied", "source")
    assert (unwritten["error_code"], unwritten["file_name"]) == ("write.denied", None)
    assert (unwritten["source_width"], unwritten["status"]) == (40, "failed")
    assert unwritten["source_sha256"]
    assert delays == []


def growing(path, times):
    """Reading as it is while something appends to the file: for so many reads, and then no more."""
    read_to_end, left = storage._read_to_end, iter(range(times))

    def read_while_it_grows(descriptor, view):
        size = read_to_end(descriptor, view)
        if next(left, None) is not None:
            with path.open("ab") as file:
                file.write(b"\0")
        return size

    return read_while_it_grows


@pytest.mark.parametrize("times", [1, TRIES - 1])
def test_a_file_that_is_being_written_is_read_again_with_backoff(source, place, monkeypatch, delays, times):
    write_image(source / "a.jpg")
    monkeypatch.setattr(storage, "_read_to_end", growing(source / "a.jpg", times))
    monkeypatch.setattr(random, "uniform", lambda *bounds: bounds[1])
    rows, _ = work(source, place)
    assert (rows["a.jpg"]["status"], rows["a.jpg"]["attempts"]) == ("ok", 1)
    assert rows["a.jpg"]["source_size"] == (source / "a.jpg").stat().st_size
    assert delays == [FIRST_BACKOFF_SECONDS * 2**tried for tried in range(times)]


def test_delays_are_jittered(source, place, monkeypatch, delays):
    for number in range(8):
        write_image(source / f"{number}.jpg")
    read_to_end = storage._read_to_end
    seen = set()

    def fail_once(descriptor, view):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if path not in seen:
            seen.add(path)
            raise OSError(errno.EIO, "made up: there is no failing disk here")
        return read_to_end(descriptor, view)

    monkeypatch.setattr(storage, "_read_to_end", fail_once)
    rows, _ = work(source, place)
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert len(set(delays)) == 8
    assert all(0 < delay <= 2 * FIRST_BACKOFF_SECONDS for delay in delays)


def test_a_file_that_never_holds_still_fails_and_is_worth_a_retry(source, place, monkeypatch, delays):
    write_image(source / "a.jpg")
    monkeypatch.setattr(storage, "_read_to_end", growing(source / "a.jpg", 100))
    rows, _ = work(source, place)
    assert (rows["a.jpg"]["error_code"], rows["a.jpg"]["attempts"]) == ("source.changed", 1)
    assert len(delays) == TRIES - 1


def test_a_write_that_may_pass_is_tried_again(source, place, monkeypatch, delays):
    # Only a failing disk would do this; here its error is made up.
    write_image(source / "a.jpg")
    failures = iter([OSError(errno.EIO, ""), OSError(errno.EIO, "")])
    replace_file = storage.replace_file

    def fail_twice(*arguments):
        for failure in failures:
            raise failure
        replace_file(*arguments)

    monkeypatch.setattr(storage, "replace_file", fail_twice)
    rows, _ = work(source, place)
    assert rows["a.jpg"]["status"] == "ok"
    assert len(delays) == 2


def test_rows_keep_the_order_of_the_plan_whatever_takes_long(source, place, monkeypatch):
    for number in range(40):
        write_image(source / f"{number:02d}.jpg", seed=number)
    for number in range(5, 40, 7):
        (source / f"{number:02d}.jpg").write_bytes(b"bad")
    write = storage.LocalFolder.write

    def write_slowly(folder, path, data):
        time.sleep(0.01 if path < "10" else 0)
        write(folder, path, data)

    monkeypatch.setattr(storage.LocalFolder, "write", write_slowly)
    workspace, _, plan = prepare(source, place)
    work_shard(shard_of(place, plan))
    assert [row["source_path"] for row in journal_rows(workspace)] == sorted(plan_rows(workspace))


@pytest.mark.parametrize("limit", [1, 4, 64])
def test_bytes_in_flight_are_bounded_whatever_is_slow(source, place, monkeypatch, limit):
    size = 1 << 10
    for number in range(60):
        (source / f"{number:02d}.jpg").write_bytes(bytes(size))
    recipe = Recipe(width=16, height=16)
    each = size + 16 * 16
    in_flight, memories = [], []
    read, create = Pipeline._read, SharedBatch.create

    def noted(self, *arguments):
        read(self, *arguments)
        in_flight.append(self._in_flight)

    monkeypatch.setattr(Pipeline, "_read", noted)
    monkeypatch.setattr(SharedBatch, "create", lambda: memories.append(1) or create())
    monkeypatch.setattr(
        Images, "_finish", lambda self, image: time.sleep(0.002) or replace(self._row(image), status="ok")
    )
    monkeypatch.setattr(pipeline_module, "IN_FLIGHT_BYTES", limit * each)
    thread_codec().close()
    _, [result] = work(source, place, recipe=recipe)
    assert result.ok == 60
    assert max(in_flight) <= max(limit, IMAGES) * each
    assert len(memories) <= min(max(limit // IMAGES, 1), READ_AHEAD + SUBMITTED + WRITTEN_BEHIND)


def test_what_a_read_that_hung_reads_at_last_reaches_no_other_image(source, place, monkeypatch):
    for number in range(3 * IMAGES):
        write_image(source / f"{number:02d}.jpg", seed=number)
    goes_on, ended = threading.Event(), threading.Event()
    read_to_end = storage._read_to_end

    def hang(descriptor, view):
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("/03.jpg"):
            goes_on.wait(60)
            view[:] = b"x" * len(view)
            ended.set()
        return read_to_end(descriptor, view)

    submitted = []
    submit = Codec.submit

    def submit_late(codec, batch, orders):
        submitted.append(batch)
        if len(submitted) == IMAGES:  # of the first batch, seven one by one; what follows is being read
            goes_on.set()
            assert ended.wait(60)
        submit(codec, batch, orders)

    monkeypatch.setattr(storage, "_read_to_end", hang)
    monkeypatch.setattr(Codec, "submit", submit_late)
    rows, _ = work(source, place, rules=Rules(max_read_seconds=0.3))
    assert {path: row["error_code"] for path, row in rows.items() if row["error_code"]} == {"03.jpg": "source.timeout"}
    for path in rows.keys() - {"03.jpg"}:
        made = transform((source / path).read_bytes(), Recipe(width=8, height=6), 10**9)
        assert (place.images / path).read_bytes() == made.data


def test_one_image_larger_than_all_that_may_be_in_flight_is_worked_alone(source, place, monkeypatch):
    monkeypatch.setattr(pipeline_module, "IN_FLIGHT_BYTES", 1)
    for number in range(4):
        write_image(source / f"{number}.jpg", seed=number)
    rows, _ = work(source, place)
    assert [row["status"] for row in rows.values()] == ["ok"] * 4


@pytest.mark.parametrize("image_format", ["jpeg", "png", "webp"])
def test_every_format_can_be_read_back(source, place, image_format):
    write_image(source / "a.gif", 64, 48, image_format="GIF")
    rows, _ = work(source, place, recipe=Recipe(width=16, height=12, format=image_format))
    with Image.open(place.root / rows["a.gif"]["file_name"]) as image:
        assert image.format.lower() == image_format == rows["a.gif"]["format"]
        assert np.asarray(image).shape == (12, 16, rows["a.gif"]["channels"])


def test_only_storage_errors_that_may_pass_are_tried_again(delays):
    calls = []

    def fail():
        calls.append(1)
        raise ImageError(ErrorCode.SOURCE_DENIED, "no")

    with pytest.raises(ImageError):
        retries.with_retries(fail)
    assert (len(calls), delays) == (1, [])


def test_outputs_get_ordinary_permissions(source, place):
    write_image(source / "a.jpg")
    umask = os.umask(0o027)
    try:
        work(source, place)
    finally:
        os.umask(umask)
    assert Path(place.images / "a.jpg").stat().st_mode & 0o777 == 0o640


@pytest.mark.usefixtures("log")
def test_what_nobody_has_thought_of_costs_one_image(source, place):
    for number in range(3):
        write_image(source / f"{number}.jpg", seed=number)
    (source / "1.jpg").write_bytes(poison("stumble"))
    rows, _ = work(source, place)
    assert {name: row["error_code"] for name, row in rows.items()} == {
        "0.jpg": None,
        "1.jpg": "decode.corrupt",
        "2.jpg": None,
    }
    assert rows["1.jpg"]["error_message"] == "unexpected ZeroDivisionError"


def test_a_file_larger_than_memory_costs_only_itself(source, place):
    write_image(source / "a.jpg")
    with (source / "huge.jpg").open("wb") as file:
        file.truncate(300 << 30)
    rows, _ = work(source, place)
    assert rows["a.jpg"]["status"] == "ok"
    assert rows["huge.jpg"]["error_code"] == "decode.memory"
    assert "max_source_bytes" in rows["huge.jpg"]["error_message"]


@pytest.fixture
def parts(monkeypatch):
    """How many images were handed on at a time."""
    sizes = []
    finish = Images.finish
    monkeypatch.setattr(Images, "finish", lambda self, items: sizes.append(len(items)) or finish(self, items))
    return sizes


def test_large_images_and_outputs_are_handed_over_by_themselves(source, place, monkeypatch, parts):
    for number in range(12):
        write_image(source / f"{number:02d}.jpg", seed=number)
    monkeypatch.setattr(pipeline_module, "BATCH_BYTES", 0)
    rows, _ = work(source, place)
    assert (len(rows), parts) == (12, [1] * 12)


def test_what_slow_images_have_come_to_is_not_held_back(source, place, parts, log):
    for number in range(3):
        (source / f"{number}.jpg").write_bytes(poison("nap", number))
    rows, _ = work(source, place)
    assert (len(rows), parts) == (3, [1] * 3)
    assert [what for what, _ in met(log)] == ["nap"] * 3


def test_a_link_that_was_put_in_place_since_the_listing_leads_nowhere(source, place, tmp_path):
    write_image(tmp_path / "secret/a.jpg")
    write_image(source / "a.jpg")
    write_image(source / "sub/a.jpg")
    write_image(source / "real.jpg")
    (source / "inside.jpg").symlink_to("real.jpg")
    _, _, plan = prepare(source, place)
    (source / "a.jpg").unlink()
    (source / "a.jpg").symlink_to(tmp_path / "secret/a.jpg")
    shutil.rmtree(source / "sub")
    (source / "sub").symlink_to(tmp_path / "secret")
    work_shard(shard_of(place, plan))
    rows = {row["source_path"]: row["error_code"] for row in journal_rows(place.workspace("run"))}
    assert rows == {"a.jpg": "source.denied", "sub/a.jpg": "source.denied", "real.jpg": None, "inside.jpg": None}


def test_a_folder_that_turns_into_a_link_between_two_outputs_is_noticed(tmp_path):
    folder, elsewhere = LocalFolder(os.fsencode(tmp_path / "images")), tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder.write("a/b/1.jpg", b"1")
    shutil.move(tmp_path / "images/a", tmp_path / "moved")
    (tmp_path / "images/a").symlink_to(elsewhere)
    with pytest.raises(ImageError, match="symbolic link"):
        folder.write("a/b/2.jpg", b"2")
    folder.delete("a/1.jpg")
    assert list(elsewhere.iterdir()) == []


def test_outputs_stay_inside_the_destination(source, place, tmp_path):
    write_image(source / "sub/a.jpg")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (place.images).mkdir(parents=True)
    (place.images / "sub").symlink_to(elsewhere)
    rows, _ = work(source, place)
    assert rows["sub/a.jpg"]["error_code"] == "write.denied"
    assert list(elsewhere.iterdir()) == []
