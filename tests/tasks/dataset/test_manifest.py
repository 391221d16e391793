import json
import os
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkroom.tasks import publish as publish_module
from darkroom.tasks.dataset import ranges, sql
from darkroom.tasks.dataset.manifest import SCHEMA, SCHEMA_VERSION, read_info, read_whole, run_file, write_table
from darkroom.tasks.errors import DarkroomError
from darkroom.tasks.publish import publish
from darkroom.tasks.recover import close_workspace
from darkroom.tasks.settings import Recipe
from darkroom.tasks.storage.store_errors import NoSpace
from tests.places import destination_at, disk
from tests.tasks.helpers import (
    SMALL,
    after,
    failed_row,
    files,
    make_job,
    manifest_rows,
    open_workspace,
    publish_rows,
    row,
    write_deleted,
    write_journal,
)

COLUMNS = [
    *("source_path", "source_size", "source_mtime", "source_etag", "source_sha256", "source_format", "source_mode"),
    *("source_width", "source_height", "orientation", "frames"),
    *("file_name", "format", "width", "height", "channels", "output_bytes", "output_sha256"),
    *("scale_x", "scale_y", "offset_x", "offset_y"),
    *("status", "error_code", "error_stage", "error_message", "warnings", "attempts"),
    *("read_ms", "decode_ms", "resize_ms", "encode_ms", "write_ms"),
    *("run_id", "shard", "worker", "recipe_id", "processed_at"),
]
"""As the design names them, in its order."""


def publish_run(place, rows=(), *, run_id="next", deleted=(), ended=True, recipe=SMALL):
    job = make_job(place, run_id=run_id, recipe=recipe)
    workspace = open_workspace(place, job)
    write_journal(workspace, [each | {"run_id": run_id} for each in rows])
    write_deleted(workspace, list(deleted))
    publish(workspace, job, ended=ended)
    return workspace, job


def obsolete(workspace):
    return set(pq.read_table(disk(workspace, "obsolete"))["file_name"].to_pylist())


def paths_of(file):
    return pq.read_table(file)["source_path"].to_pylist()


def test_the_schema_is_the_designs():
    assert SCHEMA.names == COLUMNS
    types = {field.name: str(field.type) for field in SCHEMA}
    expected = {
        "source_path": "string",
        "source_size": "int64",
        "source_mtime": "timestamp[us, tz=UTC]",
        "source_width": "int32",
        "output_bytes": "int64",
        "scale_x": "double",
        "warnings": "list<item: string>",
        "attempts": "int32",
        "read_ms": "float",
        "processed_at": "timestamp[us, tz=UTC]",
    }
    assert {name: types[name] for name in expected} == expected
    required = [field.name for field in SCHEMA if not field.nullable]
    assert required == [
        *("source_path", "status", "attempts", "run_id", "shard", "worker", "recipe_id", "processed_at")
    ]


def test_a_published_manifest_is_all_that_it_should_be(place):
    publish_rows(place, [row("a.jpg", warnings=["truncated"]), row("b.png"), failed_row("c.jpg", "decode.corrupt")])
    file = pq.ParquetFile(place.manifest)
    assert file.schema_arrow.remove_metadata().equals(SCHEMA)
    footer = {key.decode(): value.decode() for key, value in file.metadata.metadata.items()}
    assert footer["schema_version"] == str(SCHEMA_VERSION)
    assert Recipe.model_validate(json.loads(footer["recipe"])) == SMALL
    assert (footer["recipe_id"], footer["run_id"]) == (SMALL.recipe_id, "run")
    group = file.metadata.row_group(0)
    assert group.sorting_columns == (pq.SortingColumn(0),)
    chunks = {group.column(number).path_in_schema: group.column(number) for number in range(group.num_columns)}
    assert {chunk.compression for chunk in chunks.values()} == {"ZSTD"}
    assert all(chunk.has_column_index and chunk.has_offset_index for chunk in chunks.values())
    dictionaries = {name for name, chunk in chunks.items() if chunk.has_dictionary_page}
    assert {"status", "source_format", "worker", "run_id", "recipe_id"} <= dictionaries
    assert not {"source_path", "source_sha256", "file_name", "output_sha256"} & dictionaries


def test_rows_come_back_as_they_were(place):
    rows = [row("a.jpg", warnings=["truncated", "icc_invalid"], frames=3), failed_row("b.jpg", "source.denied")]
    publish_rows(place, rows)
    assert list(manifest_rows(place).values()) == [dict.fromkeys(COLUMNS) | each for each in rows]


def test_row_groups_have_the_documented_size(place, monkeypatch):
    for module in (publish_module, ranges):
        monkeypatch.setattr(module, "ROW_GROUP_ROWS", 2048)
    rows = [failed_row(f"{number:05d}.jpg", "decode.corrupt") for number in range(5000)]
    publish_rows(place, rows)
    metadata = pq.read_metadata(place.manifest)
    sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    assert len(sizes) == 3, "as few as are needed, of about the same size: cuts are estimated from a sample"
    assert all(1400 < size < 2048 for size in sizes)
    assert list(manifest_rows(place)) == [row["source_path"] for row in rows]


def test_the_same_file_is_read_by_other_readers(place):
    publish_rows(place, [row("a.jpg"), failed_row("b\n'é.jpg", "decode.corrupt")])
    query = f"SELECT source_path, epoch_us(source_mtime), warnings FROM {sql.parquet(place.manifest)}"
    expected = [("a.jpg", 1793534400000000, []), ("b\n'é.jpg", 1793534400000000, [])]
    assert duckdb.sql(query).fetchall() == expected


def test_pandas_reads_the_manifest(place):
    publish_rows(place, [row("a.jpg"), row("b.jpg")])
    frame = pd.read_parquet(place.manifest)
    assert list(frame["source_path"]) == ["a.jpg", "b.jpg"]
    assert str(frame["processed_at"].dt.tz) == "UTC"


@settings(max_examples=12)
@given(st.sets(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=5), min_size=1))
def test_manifest_and_run_files_are_sorted_by_the_bytes_of_paths(tmp_path_factory, names):
    place = destination_at(tmp_path_factory.mktemp("sorted"))
    publish_run(place, [failed_row(name, "decode.corrupt") for name in names])
    expected = sorted(names, key=str.encode)
    assert paths_of(place.manifest) == expected
    assert paths_of(place.runs / "next.parquet") == expected


def test_what_a_run_did_not_touch_stays(place):
    publish_rows(place, [row("a.jpg"), row("c.jpg")])
    before = manifest_rows(place)
    publish_run(place, [row("b.jpg")])
    assert list(manifest_rows(place)) == ["a.jpg", "b.jpg", "c.jpg"]
    assert {path: each for path, each in manifest_rows(place).items() if path != "b.jpg"} == before


def test_a_new_row_takes_the_place_of_the_old_one_whole(place):
    publish_rows(place, [row("a.jpg", warnings=["truncated"])])
    workspace, _ = publish_run(place, [failed_row("a.jpg", "decode.corrupt")])
    assert manifest_rows(place)["a.jpg"] == dict.fromkeys(COLUMNS) | failed_row(
        "a.jpg", "decode.corrupt", run_id="next"
    )
    assert obsolete(workspace) == {"images/a.jpg"}


def test_of_several_rows_of_a_run_the_latest_counts(place):
    job = make_job(place)
    workspace = open_workspace(place, job)
    early = failed_row("a.jpg", "source.timeout", processed_at=after(1))
    late = row("a.jpg", processed_at=after(2), attempts=2)
    write_journal(workspace, [late], attempt="001-1-1")
    write_journal(workspace, [early], attempt="002-1-1")
    publish(workspace, job, ended=True)
    for file in (place.manifest, place.runs / "run.parquet"):
        assert [each["status"] for each in pq.read_table(file).to_pylist()] == ["ok"]


def test_a_touched_image_changes_nothing_but_its_version(place):
    publish_rows(place, [row("a.jpg"), row("b.jpg")])
    before = manifest_rows(place)["a.jpg"]
    touched = row("a.jpg", status="unchanged", file_name=None, source_size=7, source_mtime=after(9), source_etag="e")
    workspace, job = publish_run(place, [touched | {"width": None}])
    version = {"source_size": 7, "source_mtime": after(9), "source_etag": "e"}
    assert manifest_rows(place)["a.jpg"] == before | version
    assert obsolete(workspace) == set()
    [told] = pq.read_table(place.runs / job.run_file).to_pylist()
    assert (told["status"], told["run_id"]) == ("unchanged", "next")


def test_deleted_images_lose_row_and_output(place):
    publish_rows(place, [row("a.jpg"), row("b.png"), failed_row("c.jpg", "decode.corrupt")])
    workspace, _ = publish_run(place, [row("d.jpg")], deleted=["b.png", "c.jpg", "never there.jpg"])
    assert list(manifest_rows(place)) == ["a.jpg", "d.jpg"]
    assert obsolete(workspace) == {"images/b.png.jpg"}
    close_workspace(workspace)
    assert set(files(place.images)) == {"a.jpg"}
    assert not disk(workspace, "path").exists()


def test_deletions_wait_if_they_are_not_wanted_yet(place):
    publish_rows(place, [row("a.jpg"), row("b.jpg")])
    workspace, _ = publish_run(place, deleted=["b.jpg"], ended=False)
    assert list(manifest_rows(place)) == ["a.jpg", "b.jpg"]
    assert obsolete(workspace) == set()


def test_an_output_that_moved_is_obsolete_where_it_was(place):
    publish_rows(place, [row("a.gif"), row("b.gif")])
    other = Recipe(width=8, height=6, format="png")
    workspace, _ = publish_run(place, [row("a.gif", recipe=other), row("b.gif", recipe=other)], recipe=other)
    assert obsolete(workspace) == {"images/a.gif.jpg", "images/b.gif.jpg"}
    info = read_info(place)
    assert (info.recipe, info.recipe_id) == (other, other.recipe_id)


def test_an_output_that_another_image_took_over_stays(place):
    publish_rows(place, [row("a.jpg", file_name="images/x.jpg")])
    workspace, _ = publish_run(place, [row("b.jpg", file_name="images/x.jpg")], deleted=["a.jpg"])
    assert obsolete(workspace) == set()


def test_publishing_again_changes_nothing(place):
    publish_rows(place, [row("a.jpg"), row("b.jpg"), row("c.jpg"), row("d.jpg")])
    touched = row("c.jpg", status="unchanged", source_mtime=after(9))
    rows = [row("a.jpg", width=5), failed_row("b.jpg", "decode.corrupt"), touched, row("e.jpg")]
    workspace, job = publish_run(place, rows, deleted=["d.jpg"])
    first, noted = manifest_rows(place), obsolete(workspace)
    told = pq.read_table(place.runs / job.run_file)
    for ended in (True, False):
        publish(workspace, job, ended=ended)
        assert manifest_rows(place) == first
        assert obsolete(workspace) == noted == {"images/b.jpg", "images/d.jpg"}
        assert pq.read_table(place.runs / job.run_file).equals(told)


changes = st.dictionaries(
    st.sampled_from([f"{letter}.{suffix}" for letter in "abcde" for suffix in ("jpg", "png")]),
    st.sampled_from(["ok", "failed", "unchanged", "deleted"]),
    max_size=6,
)


@settings(max_examples=12)
@given(st.lists(changes, min_size=1, max_size=4))
def test_a_manifest_is_what_its_runs_add_up_to(tmp_path_factory, runs):
    place = destination_at(tmp_path_factory.mktemp("law"))
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
                expected[path] = dict.fromkeys(COLUMNS) | rows[-1]
        named = {each["file_name"] for each in manifest_rows(place).values()} if place.manifest.exists() else set()
        workspace, _ = publish_run(place, rows, deleted=deleted, run_id=str(number))
        assert manifest_rows(place) == expected
        assert obsolete(workspace) == named - {each["file_name"] for each in expected.values()} - {None}
        close_workspace(workspace)
    assert list(manifest_rows(place)) == sorted(expected)


def test_the_manifest_of_a_place_that_is_none_is_none(place):
    assert read_info(place) is None


def test_a_manifest_says_what_it_is(place):
    publish_rows(place, [row("a.jpg"), row("b.jpg")], run_id="r1")
    info = read_info(place)
    assert (info.rows, info.run_id, info.recipe, info.recipe_id) == (2, "r1", SMALL, SMALL.recipe_id)


@pytest.mark.parametrize("damage", [lambda data: data[:0], lambda data: data[:-9], lambda data: data[::-1]])
def test_a_damaged_manifest_is_refused_and_left(place, damage):
    publish_rows(place, [row("a.jpg")])
    damaged = damage(place.manifest.read_bytes())
    place.manifest.write_bytes(damaged)
    with pytest.raises(DarkroomError, match=r"manifest\.parquet is damaged .*rebuild-manifest"):
        read_info(place)
    assert place.manifest.read_bytes() == damaged


@pytest.mark.parametrize(("version", "told"), [("2", "version 2"), (None, "version unknown")])
def test_the_manifest_of_another_version_is_refused(place, version, told):
    place.root.mkdir()
    write_table(place.manifest, iter([]), {"schema_version": version} if version else {})
    for read in (read_info, read_whole):
        with pytest.raises(DarkroomError, match=rf"schema {told}.*Use the version of Darkroom that wrote it"):
            read(place)


def test_each_try_of_a_run_leaves_a_file(place):
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


def test_a_manifest_is_on_the_disk_before_it_takes_the_place_of_the_former_one(place, monkeypatch):
    events = []
    replace = os.replace

    def note_replacement(old, new, *, src_dir_fd=None, dst_dir_fd):
        folder = place.root if src_dir_fd is None else Path(os.readlink(f"/proc/self/fd/{src_dir_fd}"))
        events.append((folder / os.fsdecode(old), Path(os.readlink(f"/proc/self/fd/{dst_dir_fd}"), os.fsdecode(new))))
        replace(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "fsync", lambda descriptor: events.append(Path(os.readlink(f"/proc/self/fd/{descriptor}"))))
    monkeypatch.setattr(os, "replace", note_replacement)
    publish_run(place, [row("a.jpg")])
    published = next(at for at, event in enumerate(events) if isinstance(event, tuple) and event[1] == place.manifest)
    written, _ = events[published]
    assert events[published - 1] == written, "on the disk"
    assert events[published + 1 :] == [place.root], "and the name, too"


@pytest.mark.parametrize("name", ["[a]*?'", "status=ok", "run_id=5"])
def test_the_name_of_a_destination_means_nothing(tmp_path, name):
    place = destination_at(tmp_path / name)
    publish_rows(destination_at(tmp_path / "a"), [row("decoy.jpg")])
    publish_rows(place, [row("a.jpg"), row("b.jpg")])
    workspace, _ = publish_run(place, [row("c.jpg")], deleted=["a.jpg"])
    assert list(manifest_rows(place)) == ["b.jpg", "c.jpg"]
    assert pq.read_schema(place.manifest).names == COLUMNS
    close_workspace(workspace)
    assert set(files(place.images)) == {"b.jpg"}


def test_a_manifest_is_the_same_bytes_for_the_same_rows(place, tmp_path):
    rows = [row(f"{number}.jpg") for number in range(50)]
    publish_rows(place, rows)
    other = destination_at(tmp_path / "other")
    job = make_job(other)
    workspace = open_workspace(other, job)
    for number in range(5):
        write_journal(workspace, rows[::-1][number * 10 : number * 10 + 10], shard=number)
    publish(workspace, job, ended=True)
    assert other.manifest.read_bytes() == place.manifest.read_bytes()


def test_nothing_but_published_files_is_left_beside_the_manifest(place):
    publish_rows(place, [row("a.jpg")])
    assert sorted(path.name for path in place.root.iterdir()) == [".darkroom", "images", "manifest.parquet", "runs"]
