import errno
import os
import random
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks import lanes, storage
from tasks import pipeline as pipeline_module
from tasks.errors import ErrorCode, ImageError
from tasks.imaging import SourceFacts, Transformed
from tasks.pipeline import FIRST_BACKOFF_SECONDS, READ_TRIES
from tasks.recipe import Recipe
from tasks.resize import work_shard
from tasks.storage import LocalFolder
from tests.tasks.helpers import destination_in, journal_rows, plan_rows, prepare, unprivileged, write_image
from tests.tasks.shards import shard_of, work


@pytest.fixture
def delays(monkeypatch):
    """The seconds that were waited between tries; none of them is."""
    waited = []
    monkeypatch.setattr(pipeline_module.time, "sleep", waited.append)
    return waited


def test_hashes_are_those_of_the_files(source, place):
    write_image(source / "a.jpg")
    rows, _ = work(source, place)
    sha256 = pipeline_module.hashlib.sha256
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
    read_all, left = storage._read_all, iter(range(times))

    def read_while_it_grows(descriptor, size):
        data = read_all(descriptor, size)
        if next(left, None) is not None:
            with path.open("ab") as file:
                file.write(b"\0")
        return data

    return read_while_it_grows


@pytest.mark.parametrize("times", [1, READ_TRIES - 1])
def test_a_file_that_is_being_written_is_read_again_with_backoff(source, place, monkeypatch, delays, times):
    write_image(source / "a.jpg")
    monkeypatch.setattr(storage, "_read_all", growing(source / "a.jpg", times))
    monkeypatch.setattr(random, "uniform", lambda *bounds: bounds[1])
    rows, _ = work(source, place)
    assert (rows["a.jpg"]["status"], rows["a.jpg"]["attempts"]) == ("ok", 1)
    assert rows["a.jpg"]["source_size"] == (source / "a.jpg").stat().st_size
    assert delays == [FIRST_BACKOFF_SECONDS * 2**tried for tried in range(times)]


def test_delays_are_jittered(source, place, monkeypatch, delays):
    for number in range(8):
        write_image(source / f"{number}.jpg")
    read_all = storage._read_all
    seen = set()

    def fail_once(descriptor, size):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if path not in seen:
            seen.add(path)
            raise OSError(errno.EIO, "made up: there is no failing disk here")
        return read_all(descriptor, size)

    monkeypatch.setattr(storage, "_read_all", fail_once)
    rows, _ = work(source, place)
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert len(set(delays)) == 8
    assert all(0 < delay <= 2 * FIRST_BACKOFF_SECONDS for delay in delays)


def test_a_file_that_never_holds_still_fails_and_is_worth_a_retry(source, place, monkeypatch, delays):
    write_image(source / "a.jpg")
    monkeypatch.setattr(storage, "_read_all", growing(source / "a.jpg", 100))
    rows, _ = work(source, place)
    assert (rows["a.jpg"]["error_code"], rows["a.jpg"]["attempts"]) == ("source.changed", 1)
    assert len(delays) == READ_TRIES - 1


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


class Tracked(bytes):
    """Bytes that tell when nobody holds them any more."""

    def __del__(self):
        self.let_go(-len(self))


class Held:
    """A source whose files are `size` bytes and exist only in memory; counts the bytes that are held."""

    def __init__(self, size):
        self.size = size
        self.now = self.most = 0
        self.lock = threading.Lock()

    def count(self, change):
        with self.lock:
            self.now += change
            self.most = max(self.most, self.now)

    def read(self):
        data = Tracked(self.size)
        self.count(self.size)
        data.let_go = self.count
        return data, storage.FileVersion(self.size, pipeline_module.datetime.now(pipeline_module.UTC))


@pytest.mark.parametrize(("slow", "limit"), [("transform", 4), ("write", 4), ("write", 64)])
def test_source_bytes_in_flight_are_bounded_whatever_is_slow(source, place, monkeypatch, slow, limit):
    size = 1 << 10
    for number in range(60):
        (source / f"{number:02d}.jpg").write_bytes(b"x" * size)
    held = Held(size)

    def slowly(stage):
        if stage == slow:
            time.sleep(0.002)

    def transform(*_):
        slowly("transform")
        facts = SourceFacts("jpeg", "RGB", 1, 1)
        return Transformed(b"out", facts, "jpeg", 1, 1, 3, 1.0, 1.0, 0.0, 0.0, (), 0.0, 0.0, 0.0)

    monkeypatch.setattr(pipeline_module, "IN_FLIGHT_BYTES", limit * size)
    monkeypatch.setattr(storage.LocalFolder, "write", lambda *_: slowly("write"))
    monkeypatch.setattr(storage.LocalFolder, "read", lambda *_: held.read())
    monkeypatch.setattr(lanes, "transform", transform)
    _, [result] = work(source, place)
    assert result.ok == 60
    batch, batches = pipeline_module.BATCH_IMAGES, pipeline_module.IN_FLIGHT_BATCHES
    ahead = min(max(limit, batch), batches * batch)
    assert held.most <= (ahead + batch) * size, "what is read ahead, and the batch that is worked on"
    assert held.now == 0


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
        pipeline_module.with_retries(fail)
    assert (len(calls), delays) == (1, [])


def test_outputs_get_ordinary_permissions(source, place):
    write_image(source / "a.jpg")
    umask = os.umask(0o027)
    try:
        work(source, place)
    finally:
        os.umask(umask)
    assert Path(place.images / "a.jpg").stat().st_mode & 0o777 == 0o640


def test_what_nobody_has_thought_of_costs_one_image(source, place, monkeypatch):
    for number in range(3):
        write_image(source / f"{number}.jpg", seed=number)
    transform = lanes.transform
    second = (source / "1.jpg").read_bytes()

    def fail_on_the_second(data, *arguments):
        if data == second:
            raise ZeroDivisionError("a bug of ours")
        return transform(data, *arguments)

    monkeypatch.setattr(lanes, "transform", fail_on_the_second)
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


@pytest.mark.parametrize("limit", ["BATCH_BYTES", "BATCH_SECONDS"])
def test_large_or_slow_outputs_are_not_piled_up(source, place, monkeypatch, limit):
    for number in range(12):
        write_image(source / f"{number:02d}.jpg", seed=number)
    waiting: list[int] = []
    submit = pipeline_module.Pipeline._finish_batch
    monkeypatch.setattr(pipeline_module, limit, 0)
    monkeypatch.setattr(
        pipeline_module.Pipeline, "_finish_batch", lambda self, batch: waiting.append(len(batch)) or submit(self, batch)
    )
    rows, _ = work(source, place)
    assert len(rows) == 12
    assert max(waiting) == 1, "each output larger than a batch is handed on by itself"


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
