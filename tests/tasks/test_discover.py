"""A source is listed completely, and so are the outputs."""

import os
import socket
import tempfile
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.tasks.discover import LISTING_SCHEMA, OUTPUTS_SCHEMA, list_outputs, survey_outputs
from darkroom.tasks.settings import Rules
from darkroom.tasks.storage import local_listing
from darkroom.tasks.storage.local_files import version_of
from darkroom.tasks.storage.locations import open_source
from darkroom.tasks.storage.naming import path_to_text
from darkroom.tasks.storage.store_errors import Denied
from tests.places import destination_at
from tests.tasks.helpers import unprivileged, write_image
from tests.tasks.listings import discover, listed, touch

ODD_NAMES = [
    b"new\nline.jpg",
    b"tab\t.jpg",
    b"quote'\".jpg",
    b"100%.jpg",
    b"%41.jpg",
    "🐈.jpg".encode(),
    b"\xff\xfe.jpg",
    "\uef80.jpg".encode(),
    b"back\\slash.jpg",
    b" .jpg",
    b"*[a]?{b,c}.jpg",
    b"-rf.jpg",
    b"x" * 251 + b".jpg",
]


def sizes_in(listing):
    return {row["file_name"]: row["size"] for row in pq.read_table(listing).to_pylist()}


def test_every_image_is_listed_with_its_size_and_time_and_nothing_else(source, listing):
    for name in ("a.jpg", "b/c.PNG", "b/d/e.webp"):
        touch(source / name, name.encode())
    os.utime(source / "a.jpg", ns=(0, 1_234_567_891_234_567_891))
    result = discover(source, listing)
    rows = listed(listing)
    assert set(rows) == {"a.jpg", "b/c.PNG", "b/d/e.webp"}
    for name, row in rows.items():
        version = version_of((source / name).stat())
        assert (row["source_size"], row["source_mtime"], row["source_etag"]) == (len(name), version.mtime, None)
    assert (result.images, result.bytes) == (3, sum(map(len, rows)))
    assert result.skipped.counts == Counter()
    assert pq.read_schema(listing).equals(LISTING_SCHEMA)


def test_listing_and_reading_see_the_same_version(source, listing):
    touch(source / "a.jpg")
    os.utime(source / "a.jpg", ns=(0, 1_700_000_000_123_456_789))
    discover(source, listing)
    version = open_source(str(source), Rules()).get("a.jpg").version
    row = listed(listing)["a.jpg"]
    assert (row["source_size"], row["source_mtime"], row["source_etag"]) == (version.size, version.mtime, version.etag)


@pytest.mark.parametrize("time", [-1_000_000_001, 0, 253_402_300_799_999_999_999])
def test_times_before_1970_and_far_ahead_are_listed(source, listing, time):
    touch(source / "a.jpg")
    os.utime(source / "a.jpg", ns=(0, time))
    discover(source, listing)
    assert listed(listing)["a.jpg"]["source_mtime"] == version_of((source / "a.jpg").stat()).mtime


def test_odd_names_are_listed_as_they_are(source, listing):
    raw_source = os.fsencode(source)
    os.mkdir(raw_source + b"/\xffolder\n")
    for name in ODD_NAMES:
        Path(os.fsdecode(raw_source + b"/" + name)).write_bytes(name)
        Path(os.fsdecode(raw_source + b"/\xffolder\n/" + name)).write_bytes(name)
    discover(source, listing)
    expected = {path_to_text(name) for name in ODD_NAMES} | {path_to_text(b"\xffolder\n/" + name) for name in ODD_NAMES}
    assert set(listed(listing)) == expected
    assert {bytes(open_source(str(source), Rules()).get(path).data) for path in expected} == set(ODD_NAMES)


def test_skipped_files_are_counted_by_reason(source, listing):
    touch(source / ".hidden.jpg")
    touch(source / ".git/a.jpg")
    touch(source / "notes.txt")
    touch(source / "jpg")
    touch(source / "Thumbs.db")
    os.mkfifo(source / "pipe.jpg")
    os.mkfifo(source / "pipe")
    (source / "folder.jpg").mkdir()
    touch(source / "folder.jpg/inner.jpg")
    touch(source / "empty.jpg", b"")
    with socket.socket(socket.AF_UNIX) as unix:
        descriptor = os.open(source, os.O_RDONLY)
        try:
            unix.bind(f"/proc/self/fd/{descriptor}/socket.jpg")  # the source's own path may be too long for a socket
        finally:
            os.close(descriptor)
    result = discover(source, listing)
    assert set(listed(listing)) == {"folder.jpg/inner.jpg", "empty.jpg"}
    assert result.skipped.counts == {"hidden": 2, "not_image": 4, "special": 2}
    assert result.not_images == {"": 2, "txt": 1, "db": 1}
    assert listed(listing)["empty.jpg"]["source_size"] == 0


def test_folders_without_permission_are_reported_and_the_rest_is_listed(open_path):
    source, listing = open_path / "source", open_path / "listing.parquet"
    touch(source / "a.jpg")
    touch(source / "secret/b.jpg")
    touch(source / "deep/secret/c.jpg")
    touch(open_path / "private/d.jpg")
    (source / "link").symlink_to(open_path / "private/folder")
    (source / "link.jpg").symlink_to(open_path / "private/d.jpg")
    for folder in (source / "secret", source / "deep/secret", open_path / "private"):
        folder.chmod(0)
    with unprivileged():
        result = discover(source, listing, Rules(follow_symlinks=True))
    assert set(listed(listing)) == {"a.jpg", "link.jpg"}
    assert sorted(result.skipped.unreadable) == ["deep/secret", "secret"]
    assert result.skipped.counts == {"unreadable_folder": 2, "not_image": 1}


def test_files_in_a_folder_that_may_be_listed_but_not_entered_have_no_size(open_path):
    source, listing = open_path / "source", open_path / "listing.parquet"
    touch(source / "half/a.jpg")
    (source / "half").chmod(0o444)
    with unprivileged():
        discover(source, listing)
    assert listed(listing)["half/a.jpg"]["source_size"] is None


def test_thumbnails_and_recycle_bins_are_excluded_and_not_entered(open_path):
    source, listing = open_path / "source", open_path / "listing.parquet"
    touch(source / "album/a.jpg")
    for path in (
        "album/@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg",
        "#recycle/deleted.jpg",
        "$RECYCLE.BIN/S-1-5/$R1.jpg",
        "lost+found/1.jpg",
        "__MACOSX/._a.jpg",
        ".thumbnails/1.jpg",
        ".Trash-1000/files/b.jpg",
        "new\nline/._a.jpg",
    ):
        touch(source / path)
    (source / "lost+found").chmod(0)
    with unprivileged():
        result = discover(source, listing)
    assert set(listed(listing)) == {"album/a.jpg"}
    assert (result.skipped.counts, result.skipped.unreadable) == ({"excluded": 8}, [])


def test_images_of_formats_that_are_not_read_are_listed(source, listing):
    for name in ("IMG_1.HEIC", "a.heif", "b.jxl", "c.CR2", "d.dng", "e.psd", "f.svg"):
        touch(source / name)
    result = discover(source, listing)
    assert result.images == 7
    assert not result.skipped.counts


@pytest.fixture
def odd_names(source):
    for name in ("photo", "pic.jpg_large", "x.jpg.1", "photo.jpg?w=600", "folder/last.jpg~"):
        write_image(source / name)
    touch(source / "new.heic-1", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    touch(source / "notes.txt", b"only text")
    touch(source / "empty", b"")
    touch(source / "broken.jpg", b"no image, and yet its name says so")
    os.mkfifo(source / "pipe")
    return source


def test_images_are_found_by_their_first_bytes_whatever_their_names_are(odd_names, listing):
    (odd_names / "dangling").symlink_to("gone")
    result = discover(odd_names, listing, Rules(by_content=True))
    images = {"photo", "pic.jpg_large", "x.jpg.1", "photo.jpg?w=600", "folder/last.jpg~", "new.heic-1", "broken.jpg"}
    assert set(listed(listing)) == {*images, "dangling"}
    assert result.images == 8
    assert result.skipped.counts == {"not_image_by_content": 2, "special": 1}
    assert result.not_images == {"txt": 1, "": 1}


def test_without_by_content_only_suffixes_count(odd_names, listing):
    result = discover(odd_names, listing)
    assert set(listed(listing)) == {"broken.jpg"}
    assert result.skipped.counts == {"not_image": 9}
    assert result.not_images == {"": 3, "jpg_large": 1, "1": 1, "jpg?w=600": 1, "jpg~": 1, "heic-1": 1, "txt": 1}


def test_a_file_without_read_permission_is_listed_so_that_its_row_reports_the_error(open_path):
    source, listing = open_path / "source", open_path / "listing.parquet"
    write_image(source / "photo")
    (source / "photo").chmod(0)
    with unprivileged():
        result = discover(source, listing, Rules(by_content=True))
    assert set(listed(listing)) == {"photo"}
    assert not result.skipped.counts


def test_the_limit_counts_only_files_that_are_images_by_content(odd_names, listing):
    assert discover(odd_names, listing, Rules(by_content=True, limit=3)).images == 3
    assert discover(odd_names, listing, Rules(by_content=True, limit=10**20)).images > 3


def test_patterns_select_the_listed_files(source, listing):
    for name in ("train/a.jpg", "train/raw/b.jpg", "train/new\nline.jpg", "test/c.jpg", "d.png", "@eaDir/e.jpg"):
        touch(source / name)
    result = discover(source, listing, Rules(include=["/train/", "*.png"], exclude=["raw/", "!@eaDir/"]))
    assert set(listed(listing)) == {"train/a.jpg", "train/new\nline.jpg", "d.png"}
    assert result.skipped.counts == {"excluded": 1, "not_included": 2}


@given(st.sets(st.lists(st.sampled_from(["a", "b", "c.d", "É"]), max_size=3).map(tuple), max_size=8))
def test_a_listing_is_exactly_the_set_of_images(folders):
    with tempfile.TemporaryDirectory() as temporary:
        source, listing = Path(temporary, "source"), Path(temporary, "listing.parquet")
        source.mkdir()
        expected = set()
        for folder in folders:
            for name in ("1.jpg", "2.txt", "3.png"):
                touch(source.joinpath(*folder, name))
            expected |= {"/".join([*folder, "1.jpg"]), "/".join([*folder, "3.png"])}
        assert discover(source, listing).skipped.counts["not_image"] == len(folders)
        assert set(listed(listing)) == expected


def test_outputs_are_listed_and_temporary_files_removed(place, listing, monkeypatch):
    monkeypatch.setattr(local_listing, "BATCH_ROWS", 2)
    touch(place.images / "a.jpg", b"123")
    touch(place.images / "b/.visible-to-us.jpg", b"1")
    touch(place.images / "b/c.jpg", b"")
    touch(place.images / ".darkroom-1-1", b"half an ima")
    touch(place.images / "b/.darkroom-1-2", b"")
    Path(os.fsdecode(os.fsencode(place.images) + b"/\xff.jpg")).write_bytes(b"12")
    list_outputs(place, listing)
    assert pq.read_schema(listing).equals(OUTPUTS_SCHEMA)
    assert sizes_in(listing) == {
        "images/a.jpg": 3,
        "images/b/.visible-to-us.jpg": 1,
        "images/b/c.jpg": 0,
        "images/\uefff.jpg": 2,
    }
    assert not list(place.images.rglob(".darkroom-*"))


def test_a_survey_of_outputs_changes_nothing_and_returns_the_folders_that_cannot_be_listed(open_path):
    place, listing = destination_at(open_path), open_path / "listing.parquet"
    for name in ("a.jpg", ".darkroom-1-1", "b/.darkroom-1-2", "closed/c.jpg"):
        touch(place.images / name)
    (place.images / "closed").chmod(0)
    with unprivileged():
        assert survey_outputs(place, listing) == ["images/closed"]
        assert set(sizes_in(listing)) == {"images/a.jpg", "images/.darkroom-1-1", "images/b/.darkroom-1-2"}
        with pytest.raises(Denied):
            list_outputs(place, listing)


def test_a_destination_without_outputs_has_an_empty_list_of_them(place, listing):
    for survey in (list_outputs, survey_outputs):
        assert not survey(place, listing)
        assert pq.read_metadata(listing).num_rows == 0


def test_thousands_of_folders_that_cannot_be_listed_are_all_reported(open_path):
    source, listing = open_path / "source", open_path / "listing.parquet"
    for number in range(2_000):
        (source / f"closed-{number}").mkdir(parents=True, mode=0)
    with unprivileged():
        result = discover(source, listing)
    assert len(result.skipped.unreadable) == 2_000
    assert result.skipped.counts == {"unreadable_folder": 2_000}
