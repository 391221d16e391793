"""A shard's images are made and described, and each fails alone."""

import os

import pyarrow.parquet as pq
import pytest
from PIL import Image

from darkroom.tasks.dataset.shard import shard_refs
from darkroom.tasks.errors import DarkroomError
from darkroom.tasks.resize import ShardResult, work_shard
from darkroom.tasks.settings import Rules
from darkroom.tasks.worker import codec_handle
from tests.contents import files
from tests.poisoned import poison
from tests.tasks.helpers import SMALL, destination_in, journal_rows, parts_of, prepare, write_image
from tests.tasks.shards import cut_small_shards, shard_of, work


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


def test_the_source_is_left_as_it_is(source, place):
    for number in range(4):
        write_image(source / f"{number}/a.jpg", seed=number)
    before = {path: path.stat() for path in source.rglob("*")}
    work(source, place)
    after = {path: path.stat() for path in source.rglob("*")}
    assert {path: (s.st_mtime_ns, s.st_size, s.st_ino) for path, s in after.items()} == {
        path: (s.st_mtime_ns, s.st_size, s.st_ino) for path, s in before.items()
    }


def test_a_bad_image_fails_alone(source, place):
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


@pytest.mark.usefixtures("log")
def test_an_image_that_crashes_its_codec_process_has_a_row(source, place):
    write_image(source / "a.jpg")
    (source / "b.jpg").write_bytes(poison("crash"))
    write_image(source / "c.jpg")
    workspace, _, plan = prepare(source, place)
    result = work_shard(shard_of(place, plan))
    assert (result.ok, result.error_codes) == (2, {"decode.crash": 1})
    crashed = journal_rows(workspace)[1]
    assert (crashed["source_path"], crashed["status"], crashed["error_stage"]) == ("b.jpg", "failed", "decode")
    assert crashed["source_sha256"]


@pytest.mark.usefixtures("log")
def test_no_image_fails_because_no_codec_process_can_be_started(source, place, monkeypatch):
    write_image(source / "a.jpg")
    workspace, _, plan = prepare(source, place)
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(DarkroomError, match="No codec process"):
        work_shard(shard_of(place, plan))
    assert journal_rows(workspace) == []


@pytest.mark.usefixtures("log")
def test_the_next_shard_uses_the_same_codec_process(source, place, monkeypatch):
    for number in range(8):
        write_image(source / f"{number}.jpg", seed=number)
    cut_small_shards(monkeypatch)
    started = []
    fork = codec_handle.fork
    monkeypatch.setattr(codec_handle, "fork", lambda *sockets: started.append(sockets) or fork(*sockets))
    _, results = work(source, place, workers=2)
    assert len(results) > 3
    assert len(started) == 1


def test_several_shards_make_the_same_outputs_as_one(source, place, tmp_path, monkeypatch):
    for number in range(9):
        write_image(source / f"{number}.jpg", seed=number)
    rows, [_] = work(source, place)
    cut_small_shards(monkeypatch)
    other = destination_in(tmp_path / "other")
    workspace, _, plan = prepare(source, other, workers=4)
    assert len(plan.shards) > 3
    shards = shard_refs(workspace, plan.shards)
    for shard in reversed(shards):
        result = work_shard(shard)
        assert (result.number, result.ok) == (shard.number, shard.images)
    assert files(other.images) == files(place.images)
    assert {row["source_path"]: row["output_sha256"] for row in journal_rows(workspace)} == {
        path: row["output_sha256"] for path, row in rows.items()
    }
    for shard in shards:
        recorded = [row for part in parts_of(workspace, shard.number) for row in pq.read_table(part).to_pylist()]
        assert len(recorded) == shard.images
        assert {row["shard"] for row in recorded} == {shard.number}


def test_a_worker_with_other_codec_libraries_refuses_shards(source, place, monkeypatch):
    write_image(source / "a.jpg")
    workspace, _, plan = prepare(source, place)
    monkeypatch.setattr("darkroom.tasks.settings.pixel_versions", lambda: {"pillow": "99"})
    with pytest.raises(DarkroomError, match=r"other versions of the codec libraries.*requirements\.lock"):
        work_shard(shard_of(place, plan))
    assert workspace.journal_parts() == []


def test_the_result_of_a_shard_is_described_in_one_line():
    result = ShardResult(0, ok=8, failed=2, seconds=2.0, source_bytes=1_500_000, error_codes={"decode.corrupt": 2})
    assert result.describe() == (
        "8 made, 2 failed (2 × decode.corrupt), 0 unchanged, 0 done before; 1.5 MB in, 0 bytes out, 2.0 s, 5.0 images/s"
    )
    assert ShardResult(0).describe().endswith("0.0 images/s")
