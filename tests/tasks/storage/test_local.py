import errno
import json
import multiprocessing
import os
import resource
import shutil
from pathlib import Path

import pytest

from darkroom.tasks.storage import local as storage
from darkroom.tasks.storage.local import MAX_PATH_BYTES, LocalFolder
from darkroom.tasks.storage.local_files import version_of
from darkroom.tasks.storage.local_listing import Links
from darkroom.tasks.storage.naming import path_to_text, text_to_path
from darkroom.tasks.storage.store import ABSENT
from darkroom.tasks.storage.store_errors import (
    Conflict,
    Denied,
    Failed,
    NoSpace,
    NotFound,
    Obstructed,
    PathTooLong,
    StorageError,
    TimedOut,
)
from tests.contents import files
from tests.tasks.helpers import unprivileged
from tests.tasks.storage.conformance import StoreTests


@pytest.fixture
def root(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def store(root):
    folder = LocalFolder(os.fsencode(root), outputs="images")
    folder.create()
    return folder


class TestLocalFolder(StoreTests):
    def contents(self, store):
        found = files(Path(store.location))
        return {path_to_text(os.fsencode(path)): data for path, data in found.items() if not path.endswith(".lock")}

    def plant(self, store, path, data):
        file = Path(store.location, os.fsdecode(text_to_path(path)))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def refusal(kind, action, *arguments, **options):
    with pytest.raises(StorageError) as caught:
        action(*arguments, **options)
    assert type(caught.value) is kind
    return caught.value


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


def test_a_put_replaces_stale_outputs_of_the_other_kind(store, root):
    store.put("images/a.jpg", b"file")
    store.put("images/a.jpg/b/c.jpg", b"folder in its place")
    assert files(root) == {"images/a.jpg/b/c.jpg": b"folder in its place"}
    store.put("images/a.jpg", b"file again")
    assert files(root) == {"images/a.jpg": b"file again"}


def test_outside_the_outputs_a_put_replaces_nothing_of_the_other_kind(store, root):
    store.put("runs", b"mine")
    store.put("images-of-mine/a.jpg", b"mine")
    store.put("manifest.parquet/notes.txt", b"mine")
    before = files(root)
    assert refusal(Obstructed, store.put, "runs/r.parquet", b"x").at == f"{root}/runs"
    assert refusal(Obstructed, store.put, "images-of-mine", b"x").at == f"{root}/images-of-mine"
    assert refusal(Obstructed, store.put, "images-of-mine/a.jpg/b.jpg", b"x").at == f"{root}/images-of-mine/a.jpg"
    with store.scratch("work") as scratch:
        (scratch / "table").write_bytes(b"x")
        assert refusal(Obstructed, store.put_file, "manifest.parquet", scratch / "table")
    assert files(root) == before


def test_a_linked_folder_is_never_written_to_or_deleted_from(store, root, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "b").mkdir(parents=True)
    (elsewhere / "b/c.jpg").write_bytes(b"precious")
    (root / "images").mkdir(parents=True)
    (root / "images/a").symlink_to(elsewhere)
    for path in ("images/a/x.jpg", "images/a/b/c.jpg"):
        assert "symbolic link" in refusal(Denied, store.put, path, b"x").reason
        store.delete([path])
        assert refusal(Obstructed, store.move, path, "kept/x.jpg")
    assert files(elsewhere) == {"b/c.jpg": b"precious"}


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


def test_a_folder_removed_since_the_last_put_is_made_again(store, root):
    for data in (b"first", b"second"):
        store.put("images/a/b/c.jpg", data)
        store.delete(["images/a/b/c.jpg"])
        assert list(root.iterdir()) == []
    (root / "images").mkdir()
    (root / "images/a").write_bytes(b"a file in its place")
    store.put("images/a/b/c.jpg", b"third")
    assert files(root) == {"images/a/b/c.jpg": b"third"}


def test_a_move_removes_folders_left_empty_and_keeps_links(store, root):
    for path in ("a/b/c.jpg", "a/d.jpg"):
        store.put(path, path.encode())
    (root / "a/link").symlink_to("nowhere")
    store.move("a/b/c.jpg", "kept/c.jpg")
    store.move("a/link", "kept/link")
    assert files(root) == {"a/d.jpg": b"a/d.jpg", "kept/c.jpg": b"a/b/c.jpg"}
    assert (root / "kept/link").readlink() == Path("nowhere")
    assert not (root / "a/b").exists()


def test_a_full_disk_leaves_nothing_behind(store, root):
    store.put("a.jpg", b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        assert refusal(NoSpace, store.put, "a.jpg", b"x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files(root) == {"a.jpg": b"old"}


@pytest.fixture
def events(monkeypatch, root):
    """Record the syncs and renames below the root, in order."""
    noted = []
    replace = os.replace

    def note_replacement(old, new, *, src_dir_fd=None, dst_dir_fd=None):
        noted.append(("rename", os.fsdecode(new)))
        replace(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    def note_sync(descriptor):
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}")).relative_to(root)
        noted.append(("sync", "temporary" if path.name.startswith(".darkroom-") else str(path)))

    monkeypatch.setattr(os, "replace", note_replacement)
    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(storage, "sync_filesystem", lambda folder: noted.append(("flush", os.path.basename(folder))))
    return noted


def test_a_durable_put_syncs_the_file_before_its_rename_and_the_folder_after(store, events):
    store.put("a/b", b"x", durable=True)
    store.put("a/b", b"x", expected=store.head("a/b"), durable=True)
    assert events == 2 * [("sync", "temporary"), ("rename", "b"), ("sync", "a")]


def test_a_finished_file_is_synced_and_renamed_not_copied(store, events):
    with store.scratch("work") as scratch:
        (scratch / "table").write_bytes(b"x")
        inode = (scratch / "table").stat().st_ino
        store.put_file("a/b", scratch / "table")
        scratch_name = os.path.relpath(scratch, store.location)
    assert events == [("sync", f"{scratch_name}/table"), ("rename", "b"), ("sync", "a")]
    assert os.stat(store.locate("a/b")).st_ino == inode


def test_outputs_are_on_the_disk_after_a_flush(store, events):
    store.flush()
    store.put("images/a/b", b"x")
    store.flush()
    assert events == [("flush", b"images"), ("rename", "b"), ("flush", b"images")]


def test_a_finished_file_on_another_file_system_is_copied(store, root, tmp_path, monkeypatch):
    replace = os.replace

    def across(old, new, *, src_dir_fd=None, dst_dir_fd=None):
        if src_dir_fd is None:
            raise OSError(errno.EXDEV, "x")
        replace(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "replace", across)
    (tmp_path / "table").write_bytes(b"table")
    store.put_file("a/b", tmp_path / "table")
    assert files(root) == {"a/b": b"table"}


def test_outputs_get_ordinary_permissions(store, root):
    umask = os.umask(0o027)
    try:
        store.put("images/a.jpg", b"x")
    finally:
        os.umask(umask)
    assert (root / "images/a.jpg").stat().st_mode & 0o777 == 0o640


def test_a_version_is_that_of_the_file_itself(store, root):
    version = store.put("a", b"data")
    assert version == version_of((root / "a").stat()) == store.head("a")
    os.utime(root / "a", ns=(0, 4 * 10**18))  # in the future: the clock will not reach it
    later = store.put("a", b"data", expected=store.head("a"))
    assert (root / "a").stat().st_mtime_ns == 4 * 10**18 + 1000
    assert later == store.head("a")


ROUNDS, PROCESSES = 40, 4


def count_up(root, barrier, name):
    """Append to a list that other processes append to: read it, and put the longer one if it has not changed."""
    store = LocalFolder(os.fsencode(root))
    barrier.wait()
    for number in range(ROUNDS):
        while True:
            try:
                found = store.get("a/counter")
                counted = [*json.loads(bytes(found.data)), [name, number]]
                store.put("a/counter", json.dumps(counted).encode(), expected=found.version)
                break
            except NotFound:
                try:
                    store.put("a/counter", b"[]", expected=ABSENT)
                except Conflict:
                    continue
            except Conflict:
                continue


@pytest.mark.timeout(120)
def test_conditional_puts_of_several_processes_lose_nothing(root):
    root.mkdir(exist_ok=True)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(PROCESSES, timeout=60)
    processes = [context.Process(target=count_up, args=(str(root), barrier, name)) for name in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    counted = json.loads((root / "a/counter").read_bytes())
    assert sorted(counted) == [[name, number] for name in range(PROCESSES) for number in range(ROUNDS)]
    assert sorted(path.name for path in (root / "a").iterdir()) == ["counter", "counter.lock"]


def test_a_folder_that_cannot_be_deleted_stays(open_path):
    store = LocalFolder(os.fsencode(open_path))
    for path in ("a/fixed/1", "a/2"):
        store.put(path, b"x")
    (open_path / "a").chmod(0o777)
    (open_path / "a/fixed").chmod(0o555)
    with unprivileged():
        store.delete_below("a")
    assert files(open_path) == {"a/fixed/1": b"x"}
    (open_path / "a/fixed").chmod(0o755)
    shutil.rmtree(open_path / "a")


def test_a_folder_that_was_renamed_is_not_made_again(root, store, tmp_path):
    store.put("a/b", b"data")
    root.rename(tmp_path / "renamed")
    (tmp_path / "file").write_bytes(b"data")
    for write in (
        lambda: store.put("a/b", b"data"),
        lambda: store.put("c", b"data", expected=ABSENT),
        lambda: store.put_file("d", tmp_path / "file"),
        lambda: store.scratch("work").__enter__(),
    ):
        with pytest.raises(NotFound):
            write()
    assert not root.exists()
    store.create()
    assert root.is_dir()
