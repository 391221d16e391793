"""Symbolic links in a source."""

import pytest

from darkroom.tasks.settings import Rules
from tests.tasks.listings import discover, listed, touch


@pytest.mark.parametrize("follow", [False, True])
def test_links_to_files(source, listing, tmp_path, follow):
    touch(source / "real.jpg", b"inside")
    touch(tmp_path / "outside.jpg", b"outside")
    touch(tmp_path / "source-beside/a.jpg", b"beside")
    (source / "inside.jpg").symlink_to("real.jpg")
    (source / "outside.jpg").symlink_to(tmp_path / "outside.jpg")
    (source / "beside.jpg").symlink_to(tmp_path / "source-beside/a.jpg")
    (source / "text").symlink_to("real.jpg")
    result = discover(source, listing, Rules(follow_symlinks=follow))
    rows = listed(listing)
    assert set(rows) == {"real.jpg", "inside.jpg"} | ({"outside.jpg", "beside.jpg"} if follow else set())
    assert rows["inside.jpg"]["source_size"] == len(b"inside")
    assert result.skipped.counts == ({"not_image": 1} if follow else {"not_image": 1, "outside": 2})


@pytest.mark.parametrize("follow", [False, True])
def test_broken_links_are_listed_without_size_and_time(source, listing, tmp_path, follow):
    (source / "dangling.jpg").symlink_to("gone.jpg")
    (source / "loop.jpg").symlink_to("loop.jpg")
    (source / "there.jpg").symlink_to("back.jpg")
    (source / "back.jpg").symlink_to("there.jpg")
    (source / "gone-outside.jpg").symlink_to(tmp_path / "gone.jpg")
    (source / "loop").symlink_to("loop")
    result = discover(source, listing, Rules(follow_symlinks=follow))
    rows = listed(listing)
    inside = {"dangling.jpg", "loop.jpg", "there.jpg", "back.jpg"}
    assert set(rows) == inside | ({"gone-outside.jpg"} if follow else set())
    assert {(row["source_size"], row["source_mtime"]) for row in rows.values()} == {(None, None)}
    assert result.skipped.counts == ({"not_image": 1} if follow else {"not_image": 1, "outside": 1})


@pytest.mark.parametrize("follow", [False, True])
def test_linked_folders(source, listing, tmp_path, follow):
    touch(source / "a/1.jpg")
    touch(tmp_path / "elsewhere/2.jpg")
    (source / "again").symlink_to("a")
    (source / "out").symlink_to(tmp_path / "elsewhere")
    result = discover(source, listing, Rules(follow_symlinks=follow))
    assert set(listed(listing)) == {"a/1.jpg"} | ({"again/1.jpg", "out/2.jpg"} if follow else set())
    assert result.skipped.counts == ({} if follow else {"linked_folder": 2})


def test_loops_of_linked_folders_end(source, listing, tmp_path):
    touch(source / "a/1.jpg")
    (source / "a/self").symlink_to(".")
    (source / "a/top").symlink_to("..")
    touch(tmp_path / "elsewhere/2.jpg")
    (source / "out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(source)
    result = discover(source, listing, Rules(follow_symlinks=True))
    paths = set(listed(listing))
    assert {"a/1.jpg", "out/2.jpg"} <= paths
    assert all(path.count("/") <= 4 for path in paths)
    assert result.skipped.counts["linked_folder"] >= 3


def test_a_source_that_is_itself_a_link(source, listing, tmp_path):
    touch(source / "a.jpg")
    (source / "b.jpg").symlink_to("a.jpg")
    (tmp_path / "link").symlink_to(source)
    result = discover(tmp_path / "link", listing)
    assert set(listed(listing)) == {"a.jpg", "b.jpg"}
    assert not result.skipped.counts


def test_links_into_the_destination_are_never_followed(tmp_path):
    source, destination = tmp_path / "source", tmp_path / "dest"
    (destination / "images").mkdir(parents=True)
    (destination / "images/out.jpg").write_bytes(b"x")
    source.mkdir()
    (source / "a.jpg").write_bytes(b"x")
    (source / "linked").symlink_to(destination / "images")
    (source / "b.jpg").symlink_to(destination / "images/out.jpg")
    found = discover(source, tmp_path / "listing.parquet", Rules(follow_symlinks=True), destination=str(destination))
    assert found.images == 1
    assert found.skipped.counts == {"linked_folder": 1, "outside": 1}
