"""Read images, write their outputs, fill their rows."""

import errno
import hashlib
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from darkroom.tasks.resize import work_shard
from darkroom.tasks.settings import Recipe, Rules
from darkroom.tasks.storage import local as storage
from darkroom.tasks.storage.local import MAX_PATH_BYTES
from darkroom.tasks.storage.retries import TRIES
from tests.places import destination_at, disk
from tests.poisoned import poison
from tests.tasks.helpers import (
    destination_in,
    journal_rows,
    manifest_rows,
    plan_rows,
    prepare,
    unprivileged,
    write_image,
)
from tests.tasks.shards import run, shard_of, work
from tests.tasks.verifying import verify


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


def test_denied_reads_and_writes_are_recorded(open_path, delays):
    source, place = open_path / "source", destination_in(open_path)
    write_image(source / "a.jpg")
    write_image(source / "b.jpg")
    workspace, _, plan = prepare(source, place)
    (source / "a.jpg").chmod(0)
    place.images.mkdir()
    disk(workspace, "path").chmod(0o777)
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
    """Return a function for `_read_to_end` that appends to the file after each of the first `times` reads."""
    read_to_end, left = storage._read_to_end, iter(range(times))

    def read_while_it_grows(descriptor, view):
        size = read_to_end(descriptor, view)
        if os.readlink(f"/proc/self/fd/{descriptor}") == str(path) and next(left, None) is not None:
            with path.open("ab") as file:
                file.write(b"\0")
        return size

    return read_while_it_grows


@pytest.mark.parametrize(("times", "code"), [(TRIES - 1, None), (100, "source.changed")])
def test_a_file_that_grows_while_it_is_read_is_read_again(source, place, monkeypatch, delays, times, code):
    write_image(source / "a.jpg")
    monkeypatch.setattr(storage, "_read_to_end", growing(source / "a.jpg", times))
    rows, _ = work(source, place)
    assert (rows["a.jpg"]["error_code"], rows["a.jpg"]["attempts"], len(delays)) == (code, 1, TRIES - 1)
    if not code:
        assert rows["a.jpg"]["source_size"] == (source / "a.jpg").stat().st_size


def test_a_write_is_retried(source, place, monkeypatch, delays):
    # Only a failing disk raises EIO, so the test simulates it.
    write_image(source / "a.jpg")
    failures = iter([OSError(errno.EIO, ""), OSError(errno.EIO, "")])
    replace_file = storage.replace_file

    def fail_twice(folder, name, data, **options):
        for failure in failures if name == b"a.jpg" else ():
            raise failure
        return replace_file(folder, name, data, **options)

    monkeypatch.setattr(storage, "replace_file", fail_twice)
    rows, _ = work(source, place)
    assert rows["a.jpg"]["status"] == "ok"
    assert len(delays) == 2


@pytest.mark.parametrize("image_format", ["jpeg", "png", "webp"])
def test_every_format_can_be_read_back(source, place, image_format):
    write_image(source / "a.gif", 64, 48, image_format="GIF")
    rows, _ = work(source, place, recipe=Recipe(width=16, height=12, format=image_format))
    with Image.open(place.root / rows["a.gif"]["file_name"]) as image:
        assert image.format.lower() == image_format == rows["a.gif"]["format"]
        assert np.asarray(image).shape == (12, 16, rows["a.gif"]["channels"])


@pytest.mark.usefixtures("log")
def test_an_unexpected_error_fails_one_image(source, place):
    for number in range(3):
        write_image(source / f"{number}.jpg", seed=number)
    (source / "1.jpg").write_bytes(poison("raise_bug"))
    rows, _ = work(source, place)
    assert {name: row["error_code"] for name, row in rows.items()} == {
        "0.jpg": None,
        "1.jpg": "decode.corrupt",
        "2.jpg": None,
    }
    assert rows["1.jpg"]["error_message"] == "unexpected ZeroDivisionError"


def test_a_file_larger_than_memory_fails_alone(source, place):
    write_image(source / "a.jpg")
    with (source / "huge.jpg").open("wb") as file:
        file.truncate(300 << 30)
    rows, _ = work(source, place)
    assert rows["a.jpg"]["status"] == "ok"
    assert rows["huge.jpg"]["error_code"] == "decode.memory"
    assert "max_source_bytes" in rows["huge.jpg"]["error_message"]


def test_a_link_that_replaced_an_image_since_the_listing_is_not_followed(source, place, tmp_path):
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


def test_a_path_too_long_for_the_destination_fails_one_image_in_each_run(source, tmp_path, delays):
    place = destination_at(tmp_path / ("d" * 200))
    depth = (MAX_PATH_BYTES - len(os.fsencode(source)) - 7) // 201
    long = "/".join(["x" * 200] * depth) + "/a.jpg"
    write_image(source / long)
    write_image(source / "b.jpg")
    run(source, place)
    rows = manifest_rows(place)
    assert (rows["b.jpg"]["status"], rows[long]["error_code"]) == ("ok", "write.path_too_long")
    assert "of at most 4,095 bytes; use a destination with a shorter path" in rows[long]["error_message"]
    report, found = verify(place)
    assert (report.counts, found) == ({}, {})
    _, _, plan = prepare(source, place, run_id="again")
    assert (plan.reasons, plan.unchanged) == ({"retry": 1}, 1)
    assert delays == []


def test_images_found_by_content_have_outputs_of_their_own(source, place):
    for number, name in enumerate(("photo", "photo.jpg", "photo.heic", "photo.jpg.1")):
        write_image(source / name, 20 + number, 20)
    write_image(source / ".hidden")
    (source / "photo.txt").write_text("no picture")
    rows, _ = work(source, place, rules=Rules(by_content=True))
    assert {path: (row["file_name"], row["source_width"]) for path, row in rows.items()} == {
        "photo": ("images/photo~as.jpg", 20),
        "photo.jpg": ("images/photo.jpg", 21),
        "photo.heic": ("images/photo.heic~as.jpg", 22),
        "photo.jpg.1": ("images/photo.jpg.1~as.jpg", 23),
    }
    assert {row["status"] for row in rows.values()} == {"ok"}


def test_outputs_stay_inside_the_destination(source, place, tmp_path):
    write_image(source / "sub/a.jpg")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (place.images).mkdir(parents=True)
    (place.images / "sub").symlink_to(elsewhere)
    rows, _ = work(source, place)
    assert rows["sub/a.jpg"]["error_code"] == "write.denied"
    assert list(elsewhere.iterdir()) == []
