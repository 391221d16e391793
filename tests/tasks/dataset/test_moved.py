"""Images that were moved within the source."""

from __future__ import annotations

import os
import shutil

import pytest

from darkroom.tasks.publish import publish
from darkroom.tasks.recover import close_workspace
from darkroom.tasks.resize import work_shard
from tests.contents import files
from tests.tasks.helpers import manifest_rows, prepare, write_image
from tests.tasks.shards import run, shard_of, work


def move(source, old, new):
    (source / new).parent.mkdir(parents=True, exist_ok=True)
    os.rename(source / old, source / new)


def test_a_moved_image_keeps_its_output_under_its_new_name(source, place, submitted):
    write_image(source / "a.png", 80, 60, image_format="PNG")
    write_image(source / "stays.jpg", 50, 40, seed=1)
    run(source, place)
    first = manifest_rows(place)
    output = (place.images / "a.png.jpg").read_bytes()
    move(source, "a.png", "é/b.png")
    submitted.clear()

    run(source, place, run_id="next")

    assert submitted == []
    assert files(place.images) == {
        "é/b.png.jpg": output,
        "stays.jpg": (place.images / "stays.jpg").read_bytes(),
    }
    rows = manifest_rows(place)
    assert sorted(rows) == ["stays.jpg", "é/b.png"]
    old, new = first["a.png"], rows["é/b.png"]
    changed = {name for name in old if old[name] != new[name]}
    assert changed == {
        *("source_path", "source_ctime", "file_name", "run_id", "processed_at"),
        *("read_ms", "decode_ms", "resize_ms", "encode_ms", "write_ms"),
    }
    assert (new["decode_ms"], new["resize_ms"], new["encode_ms"]) == (0, 0, 0)


def test_an_image_that_only_looks_moved_is_made(source, place, submitted):
    write_image(source / "a.png", image_format="BMP", seed=1)
    run(source, place)
    times = (source / "a.png").stat()
    (source / "a.png").unlink()
    write_image(source / "b.png", image_format="BMP", seed=2)
    os.utime(source / "b.png", ns=(times.st_atime_ns, times.st_mtime_ns))
    submitted.clear()

    run(source, place, run_id="next")

    assert len(submitted) == 1
    assert manifest_rows(place)["b.png"]["source_format"] == "bmp"


@pytest.mark.parametrize("harm", [lambda output: output.unlink(), lambda output: output.write_bytes(b"damaged")])
def test_an_output_that_was_damaged_since_planning_is_not_copied(source, place, submitted, harm):
    write_image(source / "a.jpg", 80, 60)
    run(source, place)
    sound = (place.images / "a.jpg").read_bytes()
    move(source, "a.jpg", "b.jpg")
    submitted.clear()
    workspace, job, plan = prepare(source, place, run_id="next")
    assert plan.reasons == {"moved": 1}
    harm(place.images / "a.jpg")

    work_shard(shard_of(place, plan, run_id="next"))
    publish(workspace, job, ended=True)
    close_workspace(workspace)

    assert len(submitted) == 1
    assert files(place.images) == {"b.jpg": sound}


def test_a_copy_beside_the_original_is_an_image_of_its_own(source, place):
    write_image(source / "a.jpg")
    run(source, place)
    shutil.copy2(source / "a.jpg", source / "b.jpg")

    rows, _ = work(source, place, run_id="next")

    assert list(rows) == ["b.jpg"]
    assert rows["b.jpg"]["decode_ms"] > 0
