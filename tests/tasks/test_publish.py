import errno
import itertools
import os
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkroom.tasks.dataset.manifest import SCHEMA, read_info, run_file
from darkroom.tasks.publish import publish
from darkroom.tasks.recover import close_workspace
from darkroom.tasks.settings import Recipe
from darkroom.tasks.storage.store_errors import NoSpace
from tests.contents import files
from tests.places import destination_at, disk
from tests.tasks.helpers import (
    Killed,
    Killer,
    after,
    failed_row,
    make_job,
    manifest_rows,
    open_workspace,
    paths_of,
    publish_rows,
    publish_run,
    row,
    write_deleted,
    write_journal,
)


def obsolete(workspace):
    return set(pq.read_table(disk(workspace, "obsolete"))["file_name"].to_pylist())


def test_rows_that_a_run_did_not_touch_stay(place):
    publish_rows(place, [row("a.jpg"), row("c.jpg")])
    before = manifest_rows(place)
    publish_run(place, [row("b.jpg")])
    assert list(manifest_rows(place)) == ["a.jpg", "b.jpg", "c.jpg"]
    assert {path: each for path, each in manifest_rows(place).items() if path != "b.jpg"} == before


def test_a_new_row_replaces_every_column_of_the_old_one(place):
    publish_rows(place, [row("a.jpg", warnings=["truncated"])])
    workspace, _ = publish_run(place, [failed_row("a.jpg", "decode.corrupt")])
    assert manifest_rows(place)["a.jpg"] == dict.fromkeys(SCHEMA.names) | failed_row(
        "a.jpg", "decode.corrupt", run_id="next"
    )
    assert obsolete(workspace) == {"images/a.jpg"}


def test_the_latest_of_several_rows_of_a_run_is_published(place):
    job = make_job(place)
    workspace = open_workspace(place, job)
    early = failed_row("a.jpg", "source.timeout", processed_at=after(1))
    late = row("a.jpg", processed_at=after(2), attempts=2)
    write_journal(workspace, [late], attempt="001-1-1")
    write_journal(workspace, [early], attempt="002-1-1")
    publish(workspace, job, ended=True)
    for file in (place.manifest, place.runs / "run.parquet"):
        assert [each["status"] for each in pq.read_table(file).to_pylist()] == ["ok"]


def test_only_the_version_changes_in_the_row_of_a_touched_image(place):
    publish_rows(place, [row("a.jpg"), row("b.jpg")])
    before = manifest_rows(place)["a.jpg"]
    touched = row("a.jpg", status="unchanged", file_name=None, source_size=7, source_mtime=after(9), source_etag="e")
    workspace, job = publish_run(place, [touched | {"width": None}])
    version = {"source_size": 7, "source_mtime": after(9), "source_etag": "e"}
    assert manifest_rows(place)["a.jpg"] == before | version
    assert obsolete(workspace) == set()
    [recorded] = pq.read_table(place.runs / job.run_file).to_pylist()
    assert (recorded["status"], recorded["run_id"]) == ("unchanged", "next")


def test_deleted_images_lose_their_rows_and_outputs(place):
    publish_rows(place, [row("a.jpg"), row("b.png"), failed_row("c.jpg", "decode.corrupt")])
    workspace, _ = publish_run(place, [row("d.jpg")], deleted=["b.png", "c.jpg", "never there.jpg"])
    assert list(manifest_rows(place)) == ["a.jpg", "d.jpg"]
    assert obsolete(workspace) == {"images/b.png.jpg"}
    close_workspace(workspace)
    assert set(files(place.images)) == {"a.jpg", "d.jpg"}
    assert not disk(workspace, "path").exists()


def test_publishing_an_unfinished_run_deletes_nothing(place):
    publish_rows(place, [row("a.jpg"), row("b.jpg")])
    workspace, _ = publish_run(place, deleted=["b.jpg"], ended=False)
    assert list(manifest_rows(place)) == ["a.jpg", "b.jpg"]
    assert obsolete(workspace) == set()


def test_the_old_file_of_a_moved_output_is_obsolete(place):
    publish_rows(place, [row("a.gif"), row("b.gif")])
    other = Recipe(width=8, height=6, format="png")
    workspace, _ = publish_run(place, [row("a.gif", recipe=other), row("b.gif", recipe=other)], recipe=other)
    assert obsolete(workspace) == {"images/a.gif.jpg", "images/b.gif.jpg"}
    info = read_info(place)
    assert (info.recipe, info.recipe_id) == (other, other.recipe_id)


def test_an_output_that_another_row_names_now_is_not_obsolete(place):
    publish_rows(place, [row("a.jpg", file_name="images/x.jpg")])
    workspace, _ = publish_run(place, [row("b.jpg", file_name="images/x.jpg")], deleted=["a.jpg"])
    assert obsolete(workspace) == set()


def test_publishing_again_changes_nothing(place):
    publish_rows(place, [row("a.jpg"), row("b.jpg"), row("c.jpg"), row("d.jpg")])
    touched = row("c.jpg", status="unchanged", source_mtime=after(9))
    rows = [row("a.jpg", width=5), failed_row("b.jpg", "decode.corrupt"), touched, row("e.jpg")]
    workspace, job = publish_run(place, rows, deleted=["d.jpg"])
    first, noted = manifest_rows(place), obsolete(workspace)
    recorded = pq.read_table(place.runs / job.run_file)
    for ended in (True, False):
        publish(workspace, job, ended=ended)
        assert manifest_rows(place) == first
        assert obsolete(workspace) == noted == {"images/b.jpg", "images/d.jpg"}
        assert pq.read_table(place.runs / job.run_file).equals(recorded)


changes = st.dictionaries(
    st.sampled_from([f"{letter}.{suffix}" for letter in "abcde" for suffix in ("jpg", "png")]),
    st.sampled_from(["ok", "failed", "unchanged", "deleted"]),
    max_size=6,
)


@settings(max_examples=12)
@given(st.lists(changes, min_size=1, max_size=4))
def test_a_manifest_is_the_sum_of_its_runs(tmp_path_factory, runs):
    place = destination_at(tmp_path_factory.mktemp("dest"))
    expected = {}
    for number, run in enumerate(runs):
        rows, deleted = [], []
        for path, change in run.items():
            if change == "deleted":
                deleted.append(path)
                expected.pop(path, None)
            elif change == "unchanged":
                rows.append(row(path, status="unchanged", source_size=number, processed_at=after(number)))
                if path in expected:
                    expected[path] = expected[path] | {"source_size": number}
            else:
                made = row(path) if change == "ok" else failed_row(path, "decode.corrupt")
                rows.append(made | {"processed_at": after(number), "run_id": str(number)})
                expected[path] = dict.fromkeys(SCHEMA.names) | rows[-1]
        named = {each["file_name"] for each in manifest_rows(place).values()} if place.manifest.exists() else set()
        workspace, _ = publish_run(place, rows, deleted=deleted, run_id=str(number))
        assert manifest_rows(place) == expected
        assert obsolete(workspace) == named - {each["file_name"] for each in expected.values()} - {None}
        close_workspace(workspace)
    assert list(manifest_rows(place)) == sorted(expected)


def test_each_retry_of_a_run_leaves_a_run_file_of_its_own(place):
    names = []
    for number in range(3):
        workspace, job = publish_run(place, [row(f"{number}.jpg")], run_id="r")
        names.append(job.run_file)
        close_workspace(workspace)
    assert names == ["r.parquet", "r.2.parquet", "r.3.parquet"]
    assert run_file(place, "r") == "r.4.parquet"
    assert [paths_of(place.runs / name) for name in names] == [["0.jpg"], ["1.jpg"], ["2.jpg"]]
    assert sorted(path.name for path in place.runs.iterdir()) == sorted(names)


def test_a_reader_never_sees_half_a_manifest(place, monkeypatch):
    publish_rows(place, [row("a.jpg")])
    before = place.manifest.read_bytes()
    job = make_job(place, run_id="next")
    workspace = open_workspace(place, job)
    write_journal(workspace, [row("b.jpg")])
    replace = os.replace

    def fail_on_manifest(old, new, **folders):
        if new == b"manifest.parquet":
            raise OSError(28, "No space left on device")
        replace(old, new, **folders)

    monkeypatch.setattr(os, "replace", fail_on_manifest)
    with pytest.raises(NoSpace):
        publish(workspace, job, ended=True)
    assert place.manifest.read_bytes() == before


def test_a_manifest_is_synced_before_it_replaces_the_old_one(place, monkeypatch):
    events = []
    replace = os.replace

    def record_replacement(old, new, *, src_dir_fd=None, dst_dir_fd):
        folder = place.root if src_dir_fd is None else Path(os.readlink(f"/proc/self/fd/{src_dir_fd}"))
        events.append((folder / os.fsdecode(old), Path(os.readlink(f"/proc/self/fd/{dst_dir_fd}"), os.fsdecode(new))))
        replace(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "fsync", lambda descriptor: events.append(Path(os.readlink(f"/proc/self/fd/{descriptor}"))))
    monkeypatch.setattr(os, "replace", record_replacement)
    publish_run(place, [row("a.jpg")])
    published = next(at for at, event in enumerate(events) if isinstance(event, tuple) and event[1] == place.manifest)
    written, _ = events[published]
    assert events[published - 1] == written, "the file is synced first"
    assert events[published + 1 :] == [place.root], "its folder is synced afterwards"


def test_the_same_rows_make_a_manifest_of_the_same_bytes(place, tmp_path):
    rows = [row(f"{number}.jpg") for number in range(50)]
    publish_rows(place, rows)
    other = destination_at(tmp_path / "other")
    job = make_job(other)
    workspace = open_workspace(other, job)
    for number in range(5):
        write_journal(workspace, rows[::-1][number * 10 : number * 10 + 10], shard=number)
    publish(workspace, job, ended=True)
    assert other.manifest.read_bytes() == place.manifest.read_bytes()


@pytest.mark.parametrize("one_file_system", [True, False])
def test_wherever_a_publication_is_cancelled_it_leaves_no_temporary_file(place, monkeypatch, one_file_system):
    if not one_file_system:
        replace = os.replace

        def across(source, target, **options):
            if "src_dir_fd" not in options:  # from the scratch folder
                raise OSError(errno.EXDEV, "")
            replace(source, target, **options)

        monkeypatch.setattr(os, "replace", across)
    publish_rows(place, [row("a.jpg")], run_id="first")
    job = make_job(place, run_id="second")
    workspace = open_workspace(place, job)
    write_journal(workspace, [row("b.jpg")])
    write_deleted(workspace, ["a.jpg"])
    known = {path for path in place.root.rglob("*") if path.is_file()}
    published = {place.manifest, place.runs / job.run_file, disk(workspace, "obsolete")}
    for cancelled in itertools.count(1):
        with pytest.MonkeyPatch.context() as patch:
            Killer(patch, cancelled, "replace", "fsync", "write")
            with suppress(Killed):
                publish(workspace, job, ended=True)
                break
        assert {path for path in place.root.rglob("*") if path.is_file()} <= known | published
    assert cancelled > 6
    assert list(manifest_rows(place)) == ["b.jpg"]
