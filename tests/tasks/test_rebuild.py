"""Rebuilding a lost or damaged manifest."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from darkroom.tasks.dataset import ranges
from darkroom.tasks.dataset.integrity import SEAL
from darkroom.tasks.dataset.lease import hold_lease
from darkroom.tasks.dataset.manifest import SCHEMA_VERSION, write_table
from darkroom.tasks.errors import DarkroomError, DestinationError, LeaseError, SettingsError
from darkroom.tasks.preflight import check_manifest
from darkroom.tasks.rebuild import rebuild_manifest
from darkroom.tasks.settings import Recipe, Rules
from tests.contents import files, flip_bit
from tests.places import disk
from tests.tasks.helpers import (
    NOBODY,
    convert_to_version_1,
    destination_in,
    make_job,
    manifest_rows,
    open_workspace,
    row,
    unprivileged,
    write_image,
    write_journal,
)
from tests.tasks.shards import run


@pytest.fixture
def two_nights(source, place):
    """Return a destination after two runs, with images made, changed, touched, deleted, failed and mended."""
    for name in ("a.jpg", "b/c.png", "é\n'.jpg", "gone.jpg", "touched.jpg"):
        write_image(source / name, seed=len(name))
    (source / "bad.jpg").write_bytes(b"no image")
    (source / "mended.jpg").write_bytes(b"no image")
    run(source, place, run_id="night-1")
    write_image(source / "a.jpg", 50, 60, seed=9)
    write_image(source / "mended.jpg", 50, 60, seed=10)
    write_image(source / "new.jpg", 50, 60, seed=11)
    os.utime(source / "touched.jpg")
    (source / "gone.jpg").unlink()
    run(source, place, run_id="night-2")
    return place


HARMS = {
    "cut": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "empty": lambda file: file.write_bytes(b""),
    "flipped": lambda file: flip_bit(file, 200),
    "footer": lambda file: flip_bit(file, file.read_bytes().index(b'"width"')),
    "info": lambda file: flip_bit(file, file.read_bytes().index(b"recipe_id")),
    "seal": lambda file: flip_bit(file, file.read_bytes().index(SEAL.encode())),
    "length": lambda file: flip_bit(file, -8),
    "lost": lambda file: file.unlink(),
    "none of ours": lambda file: pq.write_table(pq.read_table(file), file),
    "no info": lambda file: write_table(file, iter([]), {"schema_version": str(SCHEMA_VERSION)}),
    "a newer recipe": lambda file: write_table(
        file, iter([]), {"schema_version": str(SCHEMA_VERSION), "run_id": "r", "recipe_id": "r", "recipe": "{]"}
    ),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_rebuilt_manifest_equals_the_lost_one(two_nights, harm):
    place = two_nights
    before, footer = manifest_rows(place), pq.read_metadata(place.manifest).metadata
    outputs = files(place.images)
    HARMS[harm](place.manifest)
    with pytest.raises(DarkroomError, match="rebuild-manifest"):
        check_manifest(place)

    rebuilt = rebuild_manifest(place, "rescue")

    assert (rebuilt.rows, rebuilt.left_out, rebuilt.damaged_runs) == (len(before), 1, ())  # gone.jpg has no output
    assert manifest_rows(place) == before
    assert pq.read_metadata(place.manifest).metadata == footer
    assert files(place.images) == outputs
    assert (rebuilt.kept is not None) == (harm != "lost")
    assert sorted(path.name for path in place.root.iterdir()) == sorted(
        {
            ".darkroom",
            "images",
            "manifest.parquet",
            "runs",
            *([Path(rebuilt.kept).name] if rebuilt.kept else []),
        }
    )
    check_manifest(place)


@pytest.mark.parametrize("old", [["night-1"], ["night-1", "night-2"]])
def test_run_files_of_schema_version_1_are_used(two_nights, old):
    before = manifest_rows(two_nights)
    for run_id in old:
        convert_to_version_1(two_nights.runs / f"{run_id}.parquet")
    two_nights.manifest.unlink()
    rebuild_manifest(two_nights, "rescue")
    rows = manifest_rows(two_nights)
    assert {path for path, each in rows.items() if each["source_ctime"] is None} == {
        path
        for path, each in before.items()
        if len(old) == 2 or (each["run_id"] == "night-1" and path != "touched.jpg")
    }
    assert {path: each | {"source_ctime": before[path]["source_ctime"]} for path, each in rows.items()} == before
    assert pq.read_metadata(two_nights.manifest).metadata[b"schema_version"] == b"2"
    check_manifest(two_nights)


def test_outputs_that_differ_from_their_rows_are_left_out(two_nights):
    two_nights.manifest.unlink()
    (two_nights.images / "a.jpg").unlink()
    flip_bit(two_nights.images / "new.jpg", 100)

    rebuilt = rebuild_manifest(two_nights, "rescue")

    assert rebuilt.left_out == 3
    assert sorted(manifest_rows(two_nights)) == ["b/c.png", "bad.jpg", "mended.jpg", "touched.jpg", "é\n'.jpg"]


def test_a_damaged_run_file_is_reported_and_its_images_are_left_out_or_have_their_older_rows(two_nights):
    before = manifest_rows(two_nights)
    two_nights.manifest.unlink()
    flip_bit(two_nights.runs / "night-2.parquet", 100)

    rebuilt = rebuild_manifest(two_nights, "rescue")

    assert rebuilt.damaged_runs == ("night-2.parquet",)
    rows = manifest_rows(two_nights)
    assert sorted(rows) == ["b/c.png", "bad.jpg", "mended.jpg", "touched.jpg", "é\n'.jpg"]
    assert rows["b/c.png"] == before["b/c.png"]
    assert rows["mended.jpg"]["status"] == "failed"  # the next run sees by size and time that it changed


def test_only_the_newest_recipe_counts(source, place):
    write_image(source / "a.jpg")
    write_image(source / "b.jpg", seed=1)
    run(source, place, run_id="z-old")
    (source / "b.jpg").unlink()
    run(source, place, run_id="new", recipe=Recipe(width=5, height=5), rules=Rules(rebuild=True))
    before, footer = manifest_rows(place), pq.read_metadata(place.manifest).metadata
    place.manifest.unlink()

    rebuild_manifest(place, "rescue")

    assert manifest_rows(place) == before
    assert pq.read_metadata(place.manifest).metadata == footer


def test_rows_are_processed_in_ranges_of_paths(two_nights, monkeypatch):
    before = manifest_rows(two_nights)
    two_nights.manifest.unlink()
    monkeypatch.setattr(ranges, "ROW_GROUP_ROWS", 2)

    rebuild_manifest(two_nights, "rescue")

    assert manifest_rows(two_nights) == before
    assert list(manifest_rows(two_nights)) == sorted(before, key=str.encode)


def test_an_undamaged_manifest_is_not_rebuilt(two_nights):
    before = two_nights.manifest.stat()
    assert rebuild_manifest(two_nights, "rescue") is None
    assert two_nights.manifest.stat() == before


def test_the_manifest_of_another_version_is_not_rebuilt(two_nights):
    write_table(two_nights.manifest, iter([]), {"schema_version": "99"})
    before = files(two_nights.root)
    with pytest.raises(DarkroomError, match="Use the version of Darkroom that wrote it"):
        rebuild_manifest(two_nights, "rescue")
    assert {**files(two_nights.root), **before} == files(two_nights.root)


def test_without_any_undamaged_run_file_nothing_is_rebuilt(two_nights):
    two_nights.manifest.unlink()
    for file in two_nights.runs.iterdir():
        file.write_bytes(b"damaged")
    with pytest.raises(DarkroomError, match="no whole file"):
        rebuild_manifest(two_nights, "rescue")
    assert not two_nights.manifest.exists()


def test_nothing_is_rebuilt_while_a_run_holds_the_lease(two_nights):
    two_nights.manifest.unlink()
    with hold_lease(two_nights, "run"), pytest.raises(LeaseError, match="in use by run run"):
        rebuild_manifest(two_nights, "rescue")


def test_after_a_first_run_that_was_killed_while_publishing_no_manifest_is_missing(place):
    check_manifest(place)
    job = make_job(place)
    workspace = open_workspace(place, job)
    write_journal(workspace, [row("a.jpg")])
    place.runs.mkdir()
    (place.runs / job.run_file).write_bytes(b"")
    check_manifest(place)


def test_nothing_is_rebuilt_while_the_next_run_can_adopt_a_first_run_that_did_not_end(place):
    workspace = open_workspace(place, make_job(place))
    write_journal(workspace, [row("a.jpg")])
    with pytest.raises(DarkroomError, match="Start 'darkroom run': it adopts what an interrupted run has finished"):
        rebuild_manifest(place, "rescue")
    disk(workspace, "job").unlink()
    with pytest.raises(DarkroomError, match="Start 'darkroom run': it makes what is left"):
        rebuild_manifest(place, "rescue")


def test_an_output_without_read_permission_is_an_error_and_not_left_out(two_nights, open_path):
    place = destination_in(open_path)
    shutil.copytree(two_nights.root, place.root, dirs_exist_ok=True)
    shutil.chown(place.root, NOBODY) if os.getuid() == 0 else None
    shutil.rmtree(place.work)
    place.manifest.unlink()
    (place.images / "a.jpg").chmod(0)
    with unprivileged(), pytest.raises(SettingsError, match=r"images/a\.jpg can't be read"):
        rebuild_manifest(place, "rescue")
    assert not place.manifest.exists()


def test_a_destination_that_can_not_be_written_to_is_not_rebuilt(open_path):
    place = destination_in(open_path)
    place.work.mkdir(parents=True)
    place.work.chmod(0o555)
    with unprivileged(), pytest.raises(DestinationError, match=r"/\.darkroom can't be written to: Permission denied"):
        rebuild_manifest(place, "rescue")
