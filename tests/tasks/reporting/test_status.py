import os
from datetime import timedelta

import pytest

from darkroom.tasks.dataset.lease import hold_lease
from darkroom.tasks.errors import DarkroomError, SettingsError
from darkroom.tasks.publish import publish
from darkroom.tasks.recover import close_workspace
from darkroom.tasks.reporting.status import LastRun, Unfinished, read_status, read_unfinished
from darkroom.tasks.storage.store_errors import writing
from tests.contents import files
from tests.places import destination_at, disk
from tests.tasks.helpers import (
    after,
    destination_in,
    failed_row,
    make_job,
    open_workspace,
    publish_rows,
    row,
    unprivileged,
    write_deleted,
    write_journal,
)


def test_a_destination_whose_first_run_has_not_published_anything(place):
    with hold_lease(place, "now") as held:
        open_workspace(place, make_job(place, run_id="now"))
        open_workspace(place, make_job(place, run_id="dead"))
        status = read_status(place)
    assert (status.info, status.last_run, status.statuses) == (None, None, {})
    assert (status.lease, status.unfinished) == (held.lease, Unfinished(1))
    assert read_status(place).unfinished == Unfinished(2)


@pytest.mark.parametrize("name", ["dest", "[a]*?'", "status=ok"])
def test_figures_are_those_of_the_manifest_and_the_last_run(tmp_path, name):
    place = destination_at(tmp_path / name)
    publish_rows(destination_at(tmp_path / "a"), [row(f"{number}.jpg") for number in range(9)])
    failures = [failed_row("c.jpg", "decode.corrupt"), failed_row("d.jpg", "decode.corrupt")]
    publish_rows(place, [row("a.jpg"), row("b.jpg"), *failures], run_id="r1")
    more = [failed_row("e.jpg", "source.empty", processed_at=after(5)), row("f.jpg")]
    publish_rows(place, more, run_id="r2")
    os.utime(place.runs / "r2.parquet", (0, 0))  # as in a copied destination
    before = files(place.root)
    status = read_status(place)
    assert status.statuses == {"ok": 3, "failed": 3}
    assert list(status.error_codes.items()) == [("decode.corrupt", 2), ("source.empty", 1)]
    assert status.output_bytes == 30
    assert status.last_run == LastRun("r2", after(5), images=2, failed=1)
    assert (status.info.rows, status.info.run_id) == (6, "r2")
    assert (status.lease, status.unfinished) == (None, Unfinished())
    assert files(place.root) == before


def test_a_retried_run_is_named_by_its_id(place):
    publish_rows(place, [row("a.jpg")], run_id="r")
    publish_rows(place, [row("b.jpg", processed_at=after(1))], run_id="r")
    os.utime(place.runs / "r.2.parquet", (0, 0))
    assert read_status(place).last_run == LastRun("r", after(1), images=1, failed=0)


def test_a_run_that_only_deleted_ended_when_it_published(place):
    publish_rows(place, [row("a.jpg"), row("b.jpg")], run_id="r1")
    job = make_job(place, run_id="r2")
    workspace = open_workspace(place, job)
    write_deleted(workspace, ["b.jpg"])
    publish(workspace, job, ended=True)
    close_workspace(workspace)
    os.utime(place.runs / "r2.parquet", (0, 0))  # as in a copied destination
    last = read_status(place).last_run
    assert (last.run_id, last.images, last.failed) == ("r2", 0, 0)
    assert timedelta() <= last.ended - job.started_at < timedelta(minutes=5)


def test_a_damaged_manifest_is_an_error(place):
    publish_rows(place, [row("a.jpg")])
    place.manifest.write_bytes(b"x" * 100)
    with pytest.raises(DarkroomError, match="damaged"):
        read_status(place)


def test_only_what_the_next_run_adopts_is_unfinished(place):
    workspace = open_workspace(place, make_job(place))
    write_journal(workspace, [row("a.jpg"), row("b.jpg"), failed_row("c.jpg", "source.denied")])
    (place.work / "runs" / "stray").mkdir()
    (place.work / "runs" / "stray file").touch()
    assert read_unfinished(place, None) == Unfinished(1, images=2)
    disk(workspace, "job").unlink()
    assert read_unfinished(place, None) == Unfinished()


def test_work_that_the_next_run_adopts_meanwhile_is_not_counted(place, monkeypatch):
    write_journal(open_workspace(place, make_job(place)), [row("a.jpg")])

    def is_whole(_store, part):
        (place.root / part).unlink()
        return True

    monkeypatch.setattr("darkroom.tasks.reporting.status.is_whole", is_whole)
    assert read_unfinished(place, None) == Unfinished(1)


def test_the_error_names_a_file_in_place_of_a_working_folder(place):
    place.work.mkdir(parents=True)
    (place.work / "runs").touch()
    workspace = place.workspace("run")
    with pytest.raises(SettingsError, match=r"\.darkroom/runs is a file where Darkroom has a folder\. Move it away"):
        read_status(place)
    with pytest.raises(SettingsError, match=r"\.darkroom/runs is a file"), writing(place.location):
        workspace.begin()


def test_working_folders_without_permission_are_an_error(open_path):
    place = destination_in(open_path)
    open_workspace(place, make_job(place))
    for closed in (disk(place.workspace("run"), "path"), place.work / "runs"):
        closed.chmod(0)
        with unprivileged(), pytest.raises(SettingsError, match=rf"{closed} can't be read\. Grant this user"):
            read_unfinished(place, None)
