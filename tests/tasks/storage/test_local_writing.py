"""What writing to a folder replaces, syncs and leaves behind."""

import errno
import json
import multiprocessing
import os
import resource
import shutil
from pathlib import Path

import pytest

from darkroom.tasks.storage import local as storage
from darkroom.tasks.storage.local import LocalFolder
from darkroom.tasks.storage.store import ABSENT
from darkroom.tasks.storage.store_errors import Conflict, Denied, NoSpace, NotFound, Obstructed
from tests.contents import files
from tests.tasks.helpers import unprivileged
from tests.tasks.storage.refusals import refusal


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
