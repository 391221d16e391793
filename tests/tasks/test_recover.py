"""What a run adopts of unfinished ones, and what it removes."""

import os

import pytest

from darkroom.tasks.dataset import sql
from darkroom.tasks.errors import SettingsError
from darkroom.tasks.recover import Recovered, close_workspace, recover
from darkroom.tasks.storage.local_files import temporary_name
from tests.contents import files
from tests.places import disk
from tests.tasks.helpers import (
    after,
    destination_in,
    failed_row,
    make_job,
    manifest_rows,
    open_workspace,
    publish_rows,
    row,
    unprivileged,
    write_journal,
    write_output,
)


def test_without_an_unfinished_run_recovery_changes_nothing(place):
    assert recover(place) == Recovered()
    publish_rows(place, [row("a.jpg")])
    before = place.manifest.read_bytes()
    assert recover(place) == Recovered()
    assert place.manifest.read_bytes() == before


def test_a_run_that_died_before_it_finished_any_image_leaves_nothing(place):
    publish_rows(place, [row("a.jpg")])
    before = place.manifest.read_bytes()
    workspace = open_workspace(place, make_job(place, run_id="second"))
    disk(workspace, "job").write_text("{half a jo")
    disk(workspace, "journal").mkdir()
    (disk(workspace, "journal") / ".darkroom-1-0-0").write_bytes(b"half a part")
    disk(workspace, "listing").write_bytes(b"half a listing")
    assert recover(place) == Recovered(images=0)
    assert place.workspaces() == []
    assert place.manifest.read_bytes() == before


@pytest.mark.parametrize("folder", ["", "runs", "findings", ".darkroom"])
def test_temporary_files_of_interrupted_writes_are_removed(place, folder):
    names = (".darkroom-12-abcd-3", ".manifest.parquet.tmp", "..manifest.parquet.tmp.writing", ".lease.json.tmp")
    kept = (".notes.tmp", "a.parquet", temporary_name().decode())
    for name in (*names, *kept, ".darkroom-7-x-1/table"):
        place.store.put(f"{folder}/{name}".removeprefix("/"), b"x")
    recover(place)
    assert {path.rpartition("/")[2] for path in files(place.root)} == set(kept)


def test_of_several_unfinished_runs_the_rows_of_the_latest_are_published(place):
    for number, run_id in enumerate(("z-first", "a-second")):  # as after a copy, the newer one has the older mtime
        workspace = open_workspace(place, make_job(place, run_id=run_id))
        write_journal(workspace, [row("a.jpg", width=number, run_id=run_id), row(f"{number}.jpg", run_id=run_id)])
        os.utime(disk(workspace, "path"), (-number, -number))
    assert recover(place) == Recovered(images=4)
    assert list(manifest_rows(place)) == ["0.jpg", "1.jpg", "a.jpg"]
    assert manifest_rows(place)["a.jpg"]["width"] == 1
    assert sorted(path.name for path in place.runs.iterdir()) == ["a-second.parquet", "z-first.parquet"]


def test_an_output_that_the_manifest_names_is_never_removed(place):
    publish_rows(place, [row("a.jpg"), row("b.jpg")])
    workspace = open_workspace(place, make_job(place, run_id="second"))
    with workspace.scratch() as scratch, sql.connect(scratch) as db:
        sql.copy_sealed(db, f"SELECT file_name FROM {sql.parquet(place.manifest)}", disk(workspace, "obsolete"))
    write_output(place, "images/c.jpg")
    close_workspace(workspace)
    assert set(files(place.images)) == {"a.jpg", "b.jpg", "c.jpg"}


def test_images_that_are_tried_again_are_not_counted_as_finished(place):
    workspace = open_workspace(place, make_job(place))
    mine = {"run_id": "run"}
    again = [failed_row("b.jpg", "write.no_space", **mine), failed_row("c.jpg", "source.denied", **mine)]
    write_journal(workspace, [row("a.jpg", **mine), *again, failed_row("d.jpg", "decode.corrupt", **mine)])
    write_journal(workspace, [row("a.jpg", **mine, processed_at=after(1))], attempt="002-1-1")
    assert recover(place) == Recovered(images=2)


def test_a_job_without_read_permission_is_reported_as_a_settings_error(open_path):
    place = destination_in(open_path)
    workspace = open_workspace(place, make_job(place))
    write_journal(workspace, [row("a.jpg")])
    disk(workspace, "job").chmod(0)
    with unprivileged(), pytest.raises(SettingsError, match=r"job\.json can't be read\. Grant"):
        recover(place)
    assert workspace.journal_parts()
