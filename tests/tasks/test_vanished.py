"""Outputs that are gone before the manifest names them."""

import os
import shutil

import pyarrow.parquet as pq
import pytest

from darkroom.tasks import vanished
from darkroom.tasks.publish import publish
from darkroom.tasks.recover import close_workspace
from darkroom.tasks.resize import work_shard
from darkroom.tasks.storage.local import LocalFolder
from tests.contents import files
from tests.tasks.helpers import (
    failed_row,
    make_job,
    manifest_rows,
    open_workspace,
    prepare,
    publish_rows,
    row,
    write_journal,
    write_output,
)
from tests.tasks.shards import run, shard_of, work, write_flat

GONE = "the output was written, and then removed or changed by something else before the run ended"
OUTPUT_COLUMNS = ("file_name", "format", "width", "height", "output_bytes", "output_sha256", "scale_x", "offset_y")


@pytest.fixture(params=["looked at one by one", "listed", "listed with all folders"])
def lookup(request, monkeypatch):
    if request.param != "looked at one by one":
        monkeypatch.setattr(vanished, "FEW_OUTPUTS", 0)
    if request.param == "listed with all folders":
        monkeypatch.setattr(vanished, "FEW_FOLDERS", 0)


@pytest.mark.usefixtures("lookup")
def test_images_whose_outputs_vanished_are_published_as_failed(place):
    names = ("a.jpg", "b.jpg", "f/gone.jpg", "f/short.jpg", "g/h/folder.jpg", "lost/x.jpg")
    publish_rows(place, [row("b.jpg"), row("f/gone.jpg"), row("old/untouched.jpg")], run_id="first")
    job = make_job(place, run_id="second")
    workspace = open_workspace(place, job)
    touched = row("b.jpg", status="unchanged", source_size=7, file_name=None)
    new = [row(name, run_id="second") for name in names if name != "b.jpg"]
    write_journal(workspace, [*new, touched, failed_row("no.jpg", "decode.corrupt")])
    (place.images / "f/gone.jpg").unlink()
    write_output(place, "images/f/short.jpg", b"short")
    (place.images / "g/h/folder.jpg").unlink()
    (place.images / "g/h/folder.jpg").mkdir()
    shutil.rmtree(place.images / "lost")

    publish(workspace, job, ended=True)

    rows = manifest_rows(place)
    failed = {path: each["error_code"] for path, each in rows.items() if each["status"] == "failed"}
    lost = ("f/gone.jpg", "f/short.jpg", "g/h/folder.jpg", "lost/x.jpg")
    assert failed == {**dict.fromkeys(lost, "write.failed"), "no.jpg": "decode.corrupt"}
    for path in lost:
        assert (rows[path]["error_message"], rows[path]["error_stage"]) == (GONE, "write")
        assert {rows[path][name] for name in OUTPUT_COLUMNS} == {None}
        assert rows[path]["source_sha256"]
    assert rows["b.jpg"]["source_size"] == 7
    assert rows["a.jpg"]["status"] == rows["old/untouched.jpg"]["status"] == "ok"
    recorded = pq.read_table(place.runs / job.run_file)
    assert recorded["source_path"].to_pylist() == sorted([*names, "no.jpg"])
    assert recorded["status"].to_pylist().count("failed") == 5
    assert recorded.schema.metadata[b"run_id"] == b"second"
    close_workspace(workspace)
    assert set(files(place.images)) == {"a.jpg", "b.jpg", "old/untouched.jpg"}


def test_an_output_removed_during_its_run_is_made_by_the_next_run(source, place):
    for number in range(4):
        write_flat(source / f"{number}.bmp", 10 * number)
    workspace, job, plan = prepare(source, place)
    work_shard(shard_of(place, plan))
    (place.images / "1.bmp.jpg").unlink()
    publish(workspace, job, ended=True)
    close_workspace(workspace)
    assert manifest_rows(place)["1.bmp"]["status"] == "failed"
    rows, _ = work(source, place, run_id="next")
    assert {path: (each["status"], each["attempts"]) for path, each in rows.items()} == {"1.bmp": ("ok", 2)}


def test_only_folders_that_the_run_wrote_to_are_listed(place, monkeypatch):
    publish_rows(place, [row(f"old/{number}/a.jpg") for number in range(5)], run_id="first")
    monkeypatch.setattr(vanished, "FEW_OUTPUTS", 0)
    scanned = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: scanned.append(str(folder)) or scandir(folder))
    publish_rows(place, [row("new/b/a.jpg")], run_id="second")
    assert any("images/new/b" in path for path in scanned)
    assert not any("images/old" in path for path in scanned)


def test_a_few_outputs_are_checked_without_listing_folders(source, place, monkeypatch):
    write_flat(source / "a.bmp", 10)
    workspace, job, plan = prepare(source, place)
    work_shard(shard_of(place, plan))
    monkeypatch.setattr(LocalFolder, "list", None)
    publish(workspace, job, ended=True)
    assert manifest_rows(place)["a.bmp"]["status"] == "ok"


def test_without_vanished_outputs_the_run_file_is_written_once(source, place, monkeypatch):
    write_flat(source / "a.bmp", 10)
    monkeypatch.setattr("darkroom.tasks.publish.as_failed", None)
    run(source, place)
    assert manifest_rows(place)["a.bmp"]["status"] == "ok"
