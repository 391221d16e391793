"""The store in a folder: the suite of stores, reading, and errors."""

import errno
import os
from pathlib import Path

import pytest

from darkroom.tasks.storage import local as storage
from darkroom.tasks.storage.local import MAX_PATH_BYTES, LocalFolder
from darkroom.tasks.storage.local_files import version_of
from darkroom.tasks.storage.local_listing import Links
from darkroom.tasks.storage.naming import path_to_text, text_to_path
from darkroom.tasks.storage.store_errors import Conflict, Denied, Failed, NotFound, Obstructed, PathTooLong, TimedOut
from tests.contents import files
from tests.tasks.helpers import unprivileged
from tests.tasks.storage.conformance import StoreTests
from tests.tasks.storage.refusals import refusal


class TestLocalFolder(StoreTests):
    def contents(self, store):
        found = files(Path(store.location))
        return {path_to_text(os.fsencode(path)): data for path, data in found.items() if not path.endswith(".lock")}

    def plant(self, store, path, data):
        file = Path(store.location, os.fsdecode(text_to_path(path)))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def test_errors_of_reading_have_their_kind_and_location(store, root):
    root.mkdir(exist_ok=True)
    (root / "loop.jpg").symlink_to("loop.jpg")
    (root / "folder.jpg").mkdir()
    (root / "file.jpg").write_bytes(b"")
    for path in ("gone.jpg", "gone/a.jpg", "loop.jpg"):
        assert refusal(NotFound, store.get, path).at == f"{root}/{path}"
    for path, obstacle in (("folder.jpg", "folder.jpg"), ("file.jpg/a.jpg", "file.jpg")):
        error = refusal(Obstructed, store.get, path)
        assert (error.at, error.wrong.startswith("a folder")) == (f"{root}/{obstacle}", path == "folder.jpg")
    assert refusal(PathTooLong, store.get, "x" * 256).reason == "its name or path is too long for the file system"


def test_denied_access_names_the_file_or_folder(open_path):
    store = LocalFolder(os.fsencode(open_path))
    for path in ("secret.jpg", "closed/a.jpg", "fixed/b.jpg"):
        store.put(path, b"x")
    for path, mode in (("secret.jpg", 0), ("closed", 0), ("fixed", 0o555)):
        (open_path / path).chmod(mode)
    with unprivileged():
        assert refusal(Denied, store.get, "secret.jpg").at == f"{open_path}/secret.jpg"
        for action in (store.get, store.head, store.open):
            assert refusal(Denied, action, "closed/a.jpg").at == f"{open_path}/closed"
        assert refusal(Denied, list, store.children("closed")).at == f"{open_path}/closed"
        for path in ("fixed/b.jpg", "fixed/new/c.jpg"):
            assert refusal(Denied, store.put, path, b"y").at == f"{open_path}/fixed"
        assert refusal(Denied, store.delete, ["fixed/b.jpg"]).reason == "Permission denied"
        with pytest.raises(Denied), store.scratch("fixed"):
            pass


@pytest.mark.parametrize("change", [b"grown and grown", b"shrunk", b"the same"])
def test_a_write_during_a_read_is_a_conflict(store, root, monkeypatch, change):
    store.put("a.jpg", b"before!!")
    os.utime(root / "a.jpg", ns=(0, 0))
    read_to_end = storage._read_to_end

    def write_meanwhile(descriptor, view):
        size = read_to_end(descriptor, view)
        (root / "a.jpg").write_bytes(change)
        return size

    monkeypatch.setattr(storage, "_read_to_end", write_meanwhile)
    assert refusal(Conflict, store.get, "a.jpg").transient


def test_a_file_larger_than_its_size_is_a_conflict():
    assert refusal(Conflict, LocalFolder(b"/proc/self").get, "status")


def test_reading_does_not_wait_for_a_pipe(store, root):
    root.mkdir(exist_ok=True)
    os.mkfifo(root / "a.jpg")
    assert bytes(store.get("a.jpg").data) == b""
    with store.open("a.jpg") as file:
        assert file.read() == b""


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ETIMEDOUT, TimedOut), (errno.EIO, Failed), (errno.ESTALE, Failed), (errno.EROFS, Denied)],
)
def test_system_errors_become_storage_errors(store, root, monkeypatch, number, kind):
    # Injected: no failing file system is at hand.
    store.put("a/b.jpg", b"x")

    def fail(*_):
        raise OSError(number, "x")

    monkeypatch.setattr(storage, "_read_to_end", fail)
    error = refusal(kind, store.get, "a/b.jpg")
    assert error.reason == os.strerror(number)
    assert error.at == (str(root) if number == errno.EROFS else f"{root}/a/b.jpg")


@pytest.mark.parametrize("links", Links)
def test_links_that_lead_outside_are_refused_unless_all_are_followed(root, tmp_path, links):
    store = LocalFolder(os.fsencode(root), links=links)
    store.create()
    store.put("real.jpg", b"inside")
    (tmp_path / "outside.jpg").write_bytes(b"outside")
    (root / "inside.jpg").symlink_to("real.jpg")
    (root / "outside.jpg").symlink_to(tmp_path / "outside.jpg")
    assert bytes(store.get("inside.jpg").data) == b"inside"
    if links is Links.INSIDE:
        for read in (store.get, store.open, lambda path: store.get_start(path, 10)):
            assert "outside the source" in refusal(Denied, read, "outside.jpg").reason
    else:
        assert store.get_start("outside.jpg", 3) == b"out"
        assert bytes(store.get("outside.jpg").data) == b"outside"


def test_a_path_that_is_too_long_is_refused_before_any_folder_is_made(store, root):
    left = MAX_PATH_BYTES - len(os.fsencode(root)) - 1
    folders = "".join(["x" * 199 + "/"] * ((left - 1) // 200))
    fitting = folders + "a" * (left - len(folders))
    store.put(fitting, b"fits")
    assert bytes(store.get(fitting).data) == b"fits"
    refused = refusal(PathTooLong, store.put, f"y/{fitting}", b"too long")
    assert refused.reason.startswith(f"its path would have {MAX_PATH_BYTES + 2:,} of at most {MAX_PATH_BYTES:,} bytes")
    assert not refused.transient
    assert not (root / "y").exists()
    assert not refusal(PathTooLong, store.put, "a" * 256, b"").transient
    store.delete([fitting])
    assert not list(root.iterdir())


@pytest.mark.timeout(20)
def test_reading_the_first_bytes_does_not_wait_for_a_pipe(store, root):
    root.mkdir(exist_ok=True)
    os.mkfifo(root / "pipe")
    assert store.get_start("pipe", 10) == b""
    writer = os.open(root / "pipe", os.O_RDWR)
    try:
        assert store.get_start("pipe", 10) == b""
    finally:
        os.close(writer)


def test_a_version_is_that_of_the_file_itself(store, root):
    version = store.put("a", b"data")
    assert version == version_of((root / "a").stat()) == store.head("a")
    os.utime(root / "a", ns=(0, 4 * 10**18))  # in the future: the clock will not reach it
    later = store.put("a", b"data", expected=store.head("a"))
    assert (root / "a").stat().st_mtime_ns == 4 * 10**18 + 1000
    assert later == store.head("a")
