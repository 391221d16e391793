import os
from contextlib import contextmanager

import pytest

from darkroom.tasks.storage import local_listing
from darkroom.tasks.storage.local import MAX_PATH_BYTES, LocalFolder
from darkroom.tasks.storage.local_listing import Links
from darkroom.tasks.storage.store import Skipped
from darkroom.tasks.storage.store_errors import Denied, Obstructed
from tests.tasks.helpers import unprivileged


def listing(root, prefix="", **options):
    skipped = Skipped()
    batches = LocalFolder(os.fsencode(root), **options).list(prefix, skipped=skipped)
    return {row["path"]: row["size"] for batch in batches for row in batch.to_pylist()}, skipped


def test_irregular_files_have_a_size_of_minus_one(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"123")
    (tmp_path / "link.jpg").symlink_to("a.jpg")
    (tmp_path / "folder").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert listing(tmp_path)[0] == {"a.jpg": 3, "link.jpg": -1, "folder": -1, "pipe": -1}
    found, skipped = listing(tmp_path, links=Links.INSIDE)
    assert found == {"a.jpg": 3, "link.jpg": 3}
    assert skipped.counts == {"linked_folder": 1, "special": 1}


def test_folders_that_cannot_be_listed_are_noted_or_end_the_listing(open_path):
    for path in ("a.jpg", "closed/c.jpg", "d/half/e.jpg"):
        (open_path / "images" / path).parent.mkdir(parents=True, exist_ok=True)
        (open_path / "images" / path).touch()
    (open_path / "images/closed").chmod(0)
    (open_path / "images/d/half").chmod(0o444)
    with unprivileged():
        found, skipped = listing(open_path, "images")
        assert found == {"images/a.jpg": 0}
        assert sorted(skipped.unreadable) == ["images/closed", "images/d/half"]
        with pytest.raises(Denied) as caught:
            list(LocalFolder(os.fsencode(open_path)).list("images"))
        assert caught.value.at.startswith(f"{open_path}/images/")
    assert listing(open_path, "images/a.jpg")[1].unreadable == ["images/a.jpg"]
    with pytest.raises(Obstructed):
        list(LocalFolder(os.fsencode(open_path)).list("images/a.jpg"))


@contextmanager
def deep_folder(root, length):
    """Provide a descriptor of a folder whose path has `length` bytes, and its path below the root."""
    os.makedirs(root, exist_ok=True)
    folder, left, names = os.open(root, os.O_RDONLY), length - len(os.fsencode(root)), []
    while left:
        size = left if left <= 200 else min(200, left - 2)
        names.append("x" * (size - 1))
        os.mkdir(names[-1], dir_fd=folder)
        above, folder = folder, os.open(names[-1], os.O_RDONLY, dir_fd=folder)
        os.close(above)
        left -= size
    try:
        yield folder, "/".join(names)
    finally:
        os.close(folder)


@pytest.mark.parametrize("length", [MAX_PATH_BYTES - 10, MAX_PATH_BYTES, MAX_PATH_BYTES + 200])
def test_paths_that_are_too_long_never_end_a_listing(tmp_path, length):
    root = tmp_path / "store"
    with deep_folder(root, length) as (folder, path):
        for name in ("a.jpg", "b" * 20 + ".jpg"):
            os.close(os.open(name, os.O_CREAT, dir_fd=folder))
        (root / "c.jpg").touch()
        is_listed = length <= MAX_PATH_BYTES
        deep = (
            {f"{path}/a.jpg": 0 if length < MAX_PATH_BYTES else None, f"{path}/{'b' * 20}.jpg": None}
            if is_listed
            else {}
        )
        found, skipped = listing(root, links=Links.INSIDE)
        assert found == {"c.jpg": 0, **deep}
        assert len(skipped.unreadable) == (not is_listed)
        outputs = [row["path"] for batch in LocalFolder(os.fsencode(root)).list() for row in batch.to_pylist()]
        assert sorted(outputs) == sorted(found)
    LocalFolder(os.fsencode(root)).delete_below("")


def test_a_store_that_does_not_exist_is_not_taken_for_an_empty_one(tmp_path):
    assert listing(tmp_path / "gone")[1].unreadable == [""]
    assert listing(tmp_path, "gone") == ({}, Skipped())


@pytest.mark.parametrize("count", [0, 2, 3, 4, 7])
def test_a_listing_is_complete_whatever_its_number_of_batches(tmp_path, monkeypatch, count):
    monkeypatch.setattr(local_listing, "BATCH_ROWS", 3)
    for number in range(count):
        (tmp_path / f"{number % 2}").mkdir(exist_ok=True)
        (tmp_path / f"{number % 2}/{number}.jpg").touch()
    batches = list(LocalFolder(os.fsencode(tmp_path)).list())
    assert [batch.num_rows for batch in batches] == [3] * (count // 3) + [count % 3] * bool(count % 3)
    assert {path for batch in batches for path in batch["path"].to_pylist()} == {
        f"{number % 2}/{number}.jpg" for number in range(count)
    }


def test_links_to_a_folder_above_the_outputs_do_not_lead_into_them(tmp_path):
    for path in ("data/dest/images/out.jpg", "data/x/a.jpg", "source/b.jpg"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "source/link").symlink_to(tmp_path / "data")
    excluded = os.fsencode(tmp_path / "data/dest")
    found, skipped = listing(tmp_path / "source", links=Links.ALL, excluded=excluded)
    assert found == {"b.jpg": 0, "link/x/a.jpg": 0}
    assert skipped.counts == {"linked_folder": 1}


def test_a_link_to_a_folder_above_it_is_no_second_copy(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/x.jpg").touch()
    (tmp_path / "a/b/up").symlink_to("..")
    found, skipped = listing(tmp_path, links=Links.ALL)
    assert found == {"a/b/x.jpg": 0}
    assert skipped.counts == {"linked_folder": 1}
