"""What a later run does with images that an earlier one knew."""

import hashlib
import itertools
import os

import pyarrow.parquet as pq

from darkroom.tasks.publish import publish
from darkroom.tasks.rebuild import rebuild_manifest
from darkroom.tasks.recover import close_workspace
from darkroom.tasks.resize import work_shard
from darkroom.tasks.settings import Rules
from darkroom.tasks.storage import local as storage
from tests.contents import files
from tests.tasks.helpers import journal_rows, manifest_rows, prepare, write_image
from tests.tasks.shards import run, shard_of, work, write_flat


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
    publish(workspace, job, ended=True)
    after = (place.images / "a.jpg").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    row = manifest_rows(place)["a.jpg"]
    assert (row["status"], row["run_id"], row["source_mtime"].timestamp()) == ("ok", "run", 5)
    close_workspace(workspace)
    assert prepare(source, place, run_id="third")[2].nothing_to_do


def renumber(source):
    """Delete the second frame, and give each later one the name of the frame before it."""
    frames = sorted(source.iterdir())
    frames[1].unlink()
    for old, new in itertools.pairwise(frames[1:]):
        new.rename(old)


def test_frames_that_were_renumbered_are_made_again(source, place, submitted):
    for number in range(1, 7):
        write_flat(source / f"f{number:03d}.bmp", 40 * number)
    run(source, place)
    shown = files(place.images)
    renumber(source)
    submitted.clear()
    run(source, place, run_id="next", rules=Rules(max_delete_ratio=1))
    assert len(submitted) == 4
    assert len(set(shown.values())) == 6
    assert files(place.images) == {
        "f001.bmp.jpg": shown["f001.bmp.jpg"],
        **{f"f{number:03d}.bmp.jpg": shown[f"f{number + 1:03d}.bmp.jpg"] for number in range(2, 6)},
    }
    for path, row in manifest_rows(place).items():
        assert row["source_sha256"] == hashlib.sha256((source / path).read_bytes()).hexdigest()
    assert prepare(source, place, run_id="third")[2].nothing_to_do


def test_a_file_of_which_only_the_change_time_is_new_is_hashed_once(source, place, submitted):
    write_flat(source / "a.bmp", 10)
    write_flat(source / "b.bmp", 10)
    run(source, place)
    before, output = manifest_rows(place), (place.images / "a.bmp.jpg").stat()
    (source / "a.bmp").chmod(0o600)
    submitted.clear()
    workspace, job, plan = prepare(source, place, run_id="next")
    assert plan.reasons == {"changed": 1}
    assert work_shard(shard_of(place, plan, run_id="next")).unchanged == 1
    publish(workspace, job, ended=True)
    close_workspace(workspace)
    assert submitted == []
    assert (place.images / "a.bmp.jpg").stat() == output
    rows = manifest_rows(place)
    assert rows["a.bmp"] == before["a.bmp"] | {"source_ctime": rows["a.bmp"]["source_ctime"]}
    assert rows["a.bmp"]["source_ctime"] > before["a.bmp"]["source_ctime"]
    assert rows["b.bmp"] == before["b.bmp"]
    assert prepare(source, place, run_id="third")[2].nothing_to_do
    place.manifest.unlink()
    rebuild_manifest(place, "rebuild")
    assert manifest_rows(place) == rows


def test_every_image_is_read_if_changes_are_detected_by_content(source, place, submitted):
    for name in "abc":
        write_flat(source / f"{name}.bmp", 10)
    run(source, place)
    made = files(place.images)
    submitted.clear()
    _, [result] = work(source, place, run_id="next", rules=Rules(detect_changes="content"))
    assert (result.unchanged, submitted, files(place.images)) == (3, [], made)


def test_an_image_that_changes_while_it_is_read_is_planned_again(source, place, monkeypatch):
    write_flat(source / "a.bmp", 10)
    read = storage._read_to_end

    def read_and_replace(descriptor, view):
        size = read(descriptor, view)
        with (source / "a.bmp").open("r+b") as file:
            file.seek(100)
            file.write(b"other")
        os.utime(source / "a.bmp", ns=(0, 10**18))
        return size

    with monkeypatch.context() as patch:
        patch.setattr(storage, "_read_to_end", read_and_replace)
        run(source, place)
    assert prepare(source, place, run_id="next")[2].reasons == {"changed": 1}


def test_a_failure_that_is_retried_next_run_keeps_the_old_output(source, place):
    write_image(source / "a.jpg", seed=1)
    write_image(source / "b.jpg", seed=2)
    run(source, place)
    before, rows = files(place.images), manifest_rows(place)
    write_image(source / "a.jpg", seed=3)
    (source / "b.jpg").write_bytes(b"no image")
    workspace, job, plan = prepare(source, place, run_id="next")
    (source / "a.jpg").unlink()  # after it was listed
    work_shard(shard_of(place, plan, run_id="next"))
    publish(workspace, job, ended=True)
    close_workspace(workspace)

    recorded = {row["source_path"]: row for row in pq.read_table(place.runs / job.run_file).to_pylist()}
    assert (recorded["a.jpg"]["error_code"], recorded["a.jpg"]["warnings"]) == ("source.not_found", ["output_kept"])
    assert (recorded["b.jpg"]["error_code"], recorded["b.jpg"]["warnings"]) == ("decode.unknown_format", [])
    after = manifest_rows(place)
    assert after["a.jpg"] == rows["a.jpg"], "as before, so that the next run tries it again"
    assert after["b.jpg"]["status"] == "failed"
    assert files(place.images) == {"a.jpg": before["a.jpg"]}
    place.manifest.unlink()
    rebuild_manifest(place, "rebuild")
    assert manifest_rows(place) == after

    write_image(source / "a.jpg", seed=3)
    run(source, place, run_id="third")
    assert manifest_rows(place)["a.jpg"]["run_id"] == "third"


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
