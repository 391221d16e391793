import errno
import os
import random
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tasks import pipeline as pipeline_module
from tasks import plan as plan_module
from tasks import storage
from tasks.errors import DarkroomError, ErrorCode, ImageError
from tasks.imaging import SourceFacts, Transformed
from tasks.pipeline import FIRST_BACKOFF_SECONDS, READ_TRIES
from tasks.publish import publish
from tasks.recipe import Recipe, Rules
from tasks.recover import close_workspace
from tasks.resize import ShardRef, ShardResult, work_shard
from tests.tasks.helpers import (
    SMALL,
    destination_in,
    files,
    journal_rows,
    manifest_rows,
    plan_rows,
    prepare,
    unprivileged,
    write_image,
)


def shard_of(place, plan, number=0, *, run_id="run", attempt=1):
    return ShardRef(
        destination=str(place.root),
        run_id=run_id,
        number=number,
        of=len(plan.shards),
        images=plan.shards[number].images,
        attempt=attempt,
    )


def work(source, place, **options):
    """Begin a run and work through all its shards; their rows by path, and what came of each shard."""
    workspace, _, plan = prepare(source, place, **options)
    results = [work_shard(shard_of(place, plan, shard.number, run_id=workspace.run_id)) for shard in plan.shards]
    return {row["source_path"]: row for row in journal_rows(workspace)}, results


def run(source, place, **options):
    """A whole run, published."""
    workspace, job, plan = prepare(source, place, **options)
    for shard in plan.shards:
        work_shard(shard_of(place, plan, shard.number, run_id=workspace.run_id))
    publish(workspace, job, delete=True)
    close_workspace(workspace)


@pytest.fixture
def delays(monkeypatch):
    """The seconds that were waited between tries; none of them is."""
    waited = []
    monkeypatch.setattr(pipeline_module.time, "sleep", waited.append)
    return waited


def many_shards(monkeypatch):
    monkeypatch.setattr(plan_module, "SHARD_SECONDS", (1e-9, 1e-8))


def test_outputs_are_made_and_described(source, place):
    write_image(source / "a.jpg", 80, 60, seed=1)
    write_image(source / "b/c.png", 40, 50, seed=2, image_format="PNG")
    write_image(source / "é\n'.JPG", 33, 44, seed=3)
    rows, [result] = work(source, place)
    assert {path: row["file_name"] for path, row in rows.items()} == {
        "a.jpg": "images/a.jpg",
        "b/c.png": "images/b/c.png.jpg",
        "é\n'.JPG": "images/é\n'.JPG",
    }
    for path, row in rows.items():
        output = place.root / row["file_name"]
        with Image.open(output) as image:
            assert (image.size, image.format, image.mode) == ((8, 6), "JPEG", "RGB")
        assert row["output_bytes"] == output.stat().st_size
        assert row["source_size"] == (source / path).stat().st_size
        assert (row["status"], row["error_code"], row["attempts"], row["shard"]) == ("ok", None, 1, 0)
        assert (row["run_id"], row["recipe_id"]) == ("run", SMALL.recipe_id)
        assert min(row[f"{stage}_ms"] for stage in ("read", "decode", "resize", "encode", "write")) >= 0
        assert row["worker"].endswith(f"/{os.getpid()}")
    facts = rows["b/c.png"]
    assert (facts["source_format"], facts["source_width"], facts["source_height"]) == ("png", 40, 50)
    assert (facts["scale_x"], facts["scale_y"]) == (8 / 40, 6 / 50)
    assert set(files(place.images)) == {row["file_name"].removeprefix("images/") for row in rows.values()}
    assert (result.ok, result.failed, result.unchanged, result.resumed) == (3, 0, 0, 0)
    assert result.source_bytes == sum(row["source_size"] for row in rows.values())
    assert result.output_bytes == sum(row["output_bytes"] for row in rows.values())


def test_hashes_are_those_of_the_files(source, place):
    write_image(source / "a.jpg")
    rows, _ = work(source, place)
    sha256 = pipeline_module.hashlib.sha256
    assert rows["a.jpg"]["source_sha256"] == sha256((source / "a.jpg").read_bytes()).hexdigest()
    assert rows["a.jpg"]["output_sha256"] == sha256((place.images / "a.jpg").read_bytes()).hexdigest()


def test_the_source_is_left_as_it_is(source, place):
    for number in range(4):
        write_image(source / f"{number}/a.jpg", seed=number)
    before = {path: path.stat() for path in source.rglob("*")}
    work(source, place)
    after = {path: path.stat() for path in source.rglob("*")}
    assert {path: (s.st_mtime_ns, s.st_size, s.st_ino) for path, s in after.items()} == {
        path: (s.st_mtime_ns, s.st_size, s.st_ino) for path, s in before.items()
    }


def test_a_bad_image_costs_only_itself(source, place):
    write_image(source / "good.jpg")
    write_image(source / "large.jpg", 200, 200)
    (source / "empty.jpg").touch()
    (source / "text.jpg").write_text("not an image")
    write_image(source / "cut.jpg", 100, 100)
    os.truncate(source / "cut.jpg", (source / "cut.jpg").stat().st_size // 2)
    (source / "dangling.jpg").symlink_to("gone.jpg")
    rows, [result] = work(source, place, rules=Rules(max_pixels=30_000))
    codes = {path: row["error_code"] for path, row in rows.items()}
    assert codes == {
        "good.jpg": None,
        "large.jpg": "decode.too_many_pixels",
        "empty.jpg": "source.empty",
        "text.jpg": "decode.unknown_format",
        "cut.jpg": "decode.truncated",
        "dangling.jpg": "source.not_found",
    }
    for path, row in rows.items():
        if codes[path]:
            assert (row["status"], row["file_name"], row["output_bytes"]) == ("failed", None, None)
            assert row["error_stage"] == codes[path].split(".")[0]
            assert str(source) not in row["error_message"]
    assert (rows["large.jpg"]["source_width"], rows["large.jpg"]["source_height"]) == (200, 200)
    assert rows["dangling.jpg"]["source_size"] is None
    assert set(files(place.images)) == {"good.jpg"}
    assert (result.ok, result.failed) == (1, 5)
    assert result.error_codes == {code: 1 for code in codes.values() if code}
    assert "1 × source.empty" in result.describe()


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


def test_a_touched_file_is_read_but_not_made_again(source, place):
    write_image(source / "a.jpg", seed=1)
    write_image(source / "b.jpg", seed=2)
    run(source, place)
    before = (place.images / "a.jpg").stat()
    os.utime(source / "a.jpg", ns=(0, 5_000_000_000))
    write_image(source / "b.jpg", seed=3)
    workspace, job, plan = prepare(source, place, run_id="next")
    result = work_shard(shard_of(place, plan, run_id="next"))
    assert {row["source_path"]: row["status"] for row in journal_rows(workspace)} == {
        "a.jpg": "unchanged",
        "b.jpg": "ok",
    }
    assert (result.ok, result.unchanged) == (1, 1)
    publish(workspace, job, delete=True)
    after = (place.images / "a.jpg").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    row = manifest_rows(place)["a.jpg"]
    assert (row["status"], row["run_id"], row["source_mtime"].timestamp()) == ("ok", "run", 5)
    close_workspace(workspace)
    assert prepare(source, place, run_id="third")[2].nothing_to_do


class KilledError(BaseException):
    """What no image can raise."""


def test_a_second_attempt_does_only_what_is_left(source, place, monkeypatch):
    for number in range(6):
        write_image(source / f"{number}.jpg", seed=number)
    workspace, _, plan = prepare(source, place)
    transform, calls = pipeline_module.transform, []

    def die_at_the_fourth(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KilledError
        return transform(*arguments)

    monkeypatch.setattr(pipeline_module, "transform", die_at_the_fourth)
    with pytest.raises(KilledError):
        work_shard(shard_of(place, plan))
    finished = len(journal_rows(workspace))
    assert finished <= 3
    result = work_shard(shard_of(place, plan, attempt=2))
    assert (result.resumed, result.ok) == (finished, 6 - finished)
    assert len(calls) == 4 + 6 - finished
    rows = journal_rows(workspace)
    assert sorted(row["source_path"] for row in rows) == [f"{number}.jpg" for number in range(6)]
    again = work_shard(shard_of(place, plan, attempt=3))
    assert (again.resumed, again.ok) == (6, 0)
    assert journal_rows(workspace) == rows


def test_of_a_former_attempts_journal_nothing_is_done_again(source, place):
    for number in range(3):
        write_image(source / f"{number}.jpg", seed=number)
    rows, _ = work(source, place)
    workspace = place.workspace("run")
    made = files(place.images)
    for path in place.images.iterdir():
        path.unlink()
    (source / "1.jpg").unlink()
    plan = plan_module.Plan((plan_module.Shard(0, 3, 0),))
    result = work_shard(shard_of(place, plan, attempt=2))
    assert (result.resumed, result.failed, result.ok) == (3, 0, 0)
    assert files(place.images) == {}
    assert len(made) == len(rows) == len(journal_rows(workspace))


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


def test_shards_are_worked_apart_and_make_the_same_bytes(source, place, tmp_path, monkeypatch):
    for number in range(9):
        write_image(source / f"{number}.jpg", seed=number)
    rows, [_] = work(source, place)
    many_shards(monkeypatch)
    other = destination_in(tmp_path / "other")
    workspace, _, plan = prepare(source, other, workers=4)
    assert len(plan.shards) > 3
    for shard in reversed(plan.shards):
        result = work_shard(shard_of(other, plan, shard.number))
        assert (result.number, result.ok) == (shard.number, shard.images)
    assert files(other.images) == files(place.images)
    assert {row["source_path"]: row["output_sha256"] for row in journal_rows(workspace)} == {
        path: row["output_sha256"] for path, row in rows.items()
    }
    for shard in plan.shards:
        told = [row for part in workspace.journal_parts(shard.number) for row in pq.read_table(part).to_pylist()]
        assert len(told) == shard.images
        assert {row["shard"] for row in told} == {shard.number}


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
    monkeypatch.setattr(pipeline_module, "transform", transform)
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


def test_a_worker_with_other_codec_libraries_refuses(source, place, monkeypatch):
    write_image(source / "a.jpg")
    workspace, _, plan = prepare(source, place)
    monkeypatch.setattr("tasks.recipe.pixel_versions", lambda: {"pillow": "99"})
    with pytest.raises(DarkroomError, match=r"other versions of the codec libraries.*requirements\.lock"):
        work_shard(shard_of(place, plan))
    assert workspace.journal_parts() == []


def test_retries_of_later_runs_are_counted(source, place):
    write_image(source / "real.jpg")
    (source / "a.jpg").symlink_to("gone.jpg")
    run(source, place, run_id="one")
    rows, _ = work(source, place, run_id="two")
    assert {path: row["attempts"] for path, row in rows.items()} == {"a.jpg": 2}


def test_a_file_that_became_a_folder_and_back(source, place):
    write_image(source / "a.jpg")
    run(source, place, run_id="one")
    (source / "a.jpg").unlink()
    write_image(source / "a.jpg/b.jpg")
    run(source, place, run_id="two")
    assert set(files(place.images)) == {"a.jpg/b.jpg"}
    (source / "a.jpg/b.jpg").unlink()
    (source / "a.jpg").rmdir()
    write_image(source / "a.jpg")
    run(source, place, run_id="three")
    assert set(files(place.images)) == {"a.jpg"}
    assert list(manifest_rows(place)) == ["a.jpg"]


@pytest.mark.parametrize("image_format", ["jpeg", "png", "webp"])
def test_every_format_can_be_read_back(source, place, image_format):
    write_image(source / "a.gif", 64, 48, image_format="GIF")
    rows, _ = work(source, place, recipe=Recipe(width=16, height=12, format=image_format))
    with Image.open(place.root / rows["a.gif"]["file_name"]) as image:
        assert image.format.lower() == image_format == rows["a.gif"]["format"]
        assert np.asarray(image).shape == (12, 16, rows["a.gif"]["channels"])


def test_labels_and_lines_are_for_people():
    shard = ShardRef(destination="/d", run_id="r", number=0, of=12, images=1234)
    assert shard.label == "shard 1 of 12 (1,234 images)"
    assert shard.model_copy(update={"attempt": 2}).label.endswith(" attempt 2")
    result = ShardResult(0, ok=8, failed=2, seconds=2.0, source_bytes=1_500_000, error_codes={"decode.corrupt": 2})
    assert result.describe() == (
        "8 made, 2 failed (2 × decode.corrupt), 0 unchanged, 0 done before; 1.5 MB in, 0.0 MB out, 2.0 s, 5.0 images/s"
    )
    assert ShardResult(0).describe().endswith("0.0 images/s")


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
    transform = pipeline_module.transform
    second = (source / "1.jpg").read_bytes()

    def fail_on_the_second(data, *arguments):
        if data == second:
            raise ZeroDivisionError("a bug of ours")
        return transform(data, *arguments)

    monkeypatch.setattr(pipeline_module, "transform", fail_on_the_second)
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


def test_large_outputs_are_not_piled_up(source, place, monkeypatch):
    for number in range(12):
        write_image(source / f"{number:02d}.jpg", seed=number)
    waiting: list[int] = []
    submit = pipeline_module.Pipeline._finish_batch
    monkeypatch.setattr(pipeline_module, "BATCH_BYTES", 1)
    monkeypatch.setattr(
        pipeline_module.Pipeline, "_finish_batch", lambda self, batch: waiting.append(len(batch)) or submit(self, batch)
    )
    rows, _ = work(source, place)
    assert len(rows) == 12
    assert max(waiting) == 1, "each output larger than a batch is handed on by itself"


def test_outputs_stay_inside_the_destination(source, place, tmp_path):
    write_image(source / "sub/a.jpg")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (place.images).mkdir(parents=True)
    (place.images / "sub").symlink_to(elsewhere)
    rows, _ = work(source, place)
    assert rows["sub/a.jpg"]["error_code"] == "write.denied"
    assert list(elsewhere.iterdir()) == []
