import errno
import os
import resource
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.tasks.errors import ErrorCode, ImageError, SettingsError
from darkroom.tasks.storage import local as storage
from darkroom.tasks.storage.local import LocalFolder, local_folder, version_of
from tests.tasks.helpers import files, read, unprivileged


@pytest.fixture
def folder(tmp_path):
    return LocalFolder(os.fsencode(tmp_path))


def code_of(action, *arguments):
    with pytest.raises(ImageError) as caught:
        action(*arguments)
    assert "/" not in caught.value.message.replace("Input/output", "")
    return caught.value.code


@pytest.mark.parametrize("size", [0, 1, 100_000, 3 << 20])
def test_a_file_is_read_whole_with_its_version(folder, tmp_path, size):
    data = os.urandom(size)
    (tmp_path / "a.jpg").write_bytes(data)
    found, version = read(folder, "a.jpg")
    assert found == data
    assert version == version_of((tmp_path / "a.jpg").stat())
    assert version.size == size


@given(st.integers(-(2**33), 2**33), st.integers(0, 999_999_999))
def test_versions_are_exact_to_the_microsecond(seconds, nanoseconds):
    time = seconds * 1_000_000_000 + nanoseconds
    status = os.stat_result((0,) * 10, {"st_mtime_ns": time})
    expected = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds, microseconds=nanoseconds // 1000)
    assert version_of(status).mtime == expected


def test_what_cannot_be_read_says_why(folder, tmp_path):
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "file.jpg").write_bytes(b"")
    for path in ("gone.jpg", "gone/a.jpg", "loop.jpg", "folder.jpg", "file.jpg/a.jpg"):
        assert code_of(folder.read, path) is ErrorCode.SOURCE_NOT_FOUND
    assert code_of(folder.read, "x" * 256) is ErrorCode.SOURCE_FAILED


def test_what_may_not_be_read_is_denied(open_path):
    (open_path / "secret.jpg").write_bytes(b"x")
    (open_path / "secret.jpg").chmod(0)
    (open_path / "folder").mkdir()
    (open_path / "folder").chmod(0)
    folder = LocalFolder(os.fsencode(open_path))
    with unprivileged():
        assert code_of(folder.read, "secret.jpg") is ErrorCode.SOURCE_DENIED
        assert code_of(folder.read, "folder/a.jpg") is ErrorCode.SOURCE_DENIED


@pytest.mark.parametrize("change", [b"grown and grown", b"shrunk", b"the same"])
def test_a_file_that_is_written_to_while_it_is_read_is_noticed(folder, tmp_path, monkeypatch, change):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"before!!")
    os.utime(path, ns=(0, 0))
    read_to_end = storage._read_to_end

    def write_meanwhile(descriptor, view):
        size = read_to_end(descriptor, view)
        path.write_bytes(change)
        return size

    monkeypatch.setattr(storage, "_read_to_end", write_meanwhile)
    assert code_of(folder.read, "a.jpg") is ErrorCode.SOURCE_CHANGED


def test_a_file_of_which_more_can_be_read_than_its_size_says_is_not_taken():
    folder = LocalFolder(b"/proc/self")
    assert code_of(folder.read, "status") is ErrorCode.SOURCE_CHANGED


def test_a_written_file_is_there_whole_with_the_folders_it_needs(folder, tmp_path):
    folder.write("a/b/c.jpg", b"data")
    folder.write("a/b/c.jpg", b"newer data")
    folder.write("d.jpg", b"")
    assert files(tmp_path) == {"a/b/c.jpg": b"newer data", "d.jpg": b""}


def test_stale_outputs_in_the_way_are_removed(folder, tmp_path):
    folder.write("a.jpg", b"file")
    folder.write("a.jpg/b/c.jpg", b"folder in its place")
    assert files(tmp_path) == {"a.jpg/b/c.jpg": b"folder in its place"}
    folder.write("a.jpg", b"file again")
    assert files(tmp_path) == {"a.jpg": b"file again"}


def test_a_folder_that_was_removed_since_it_was_last_written_to_is_made_again(folder, tmp_path):
    folder.write("a/b/c.jpg", b"first")
    folder.delete("a/b/c.jpg")
    assert files(tmp_path) == {}
    folder.write("a/b/c.jpg", b"second")
    folder.delete("a/b/c.jpg")
    (tmp_path / "a").write_bytes(b"a file in its place")
    folder.write("a/b/c.jpg", b"third")
    assert files(tmp_path) == {"a/b/c.jpg": b"third"}


def test_a_moved_file_takes_the_folders_that_are_left_empty(folder, tmp_path):
    elsewhere = LocalFolder(os.fsencode(tmp_path / "elsewhere"))
    for path in ("a/b/c.jpg", "a/d.jpg"):
        folder.write(path, path.encode())
    folder.move("a/b/c.jpg", elsewhere)
    assert files(tmp_path) == {"a/d.jpg": b"a/d.jpg", "elsewhere/a/b/c.jpg": b"a/b/c.jpg"}
    assert not (tmp_path / "a/b").exists()
    for path in ("a/b/c.jpg", "a/none.jpg", "../x.jpg"):
        with pytest.raises(OSError):
            folder.move(path, elsewhere)


def test_odd_names_are_written_as_their_bytes(folder, tmp_path):
    folder.write("\uefff\n/é.jpg", b"data")
    assert os.listdir(os.fsencode(tmp_path)) == [b"\xff\n"]
    assert folder.read("\uefff\n/é.jpg") == b"data"


def test_a_full_disk_leaves_nothing_behind(folder, tmp_path):
    folder.write("a.jpg", b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        code = code_of(folder.write, "a.jpg", b"x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code is ErrorCode.WRITE_NO_SPACE
    assert files(tmp_path) == {"a.jpg": b"old"}


def test_what_may_not_be_written_is_denied(open_path):
    (open_path / "fixed").mkdir(mode=0o555)
    folder = LocalFolder(os.fsencode(open_path / "fixed"))
    with unprivileged():
        assert code_of(folder.write, "a.jpg", b"x") is ErrorCode.WRITE_DENIED
        assert code_of(folder.write, "a/b.jpg", b"x") is ErrorCode.WRITE_DENIED


def test_any_other_failure_to_write_has_a_code(folder):
    assert code_of(folder.write, "x" * 256, b"x") is ErrorCode.WRITE_FAILED


def test_deleting_takes_the_folders_that_are_left_empty(folder, tmp_path):
    for path in ("a/b/c.jpg", "a/d.jpg", "e.jpg"):
        folder.write(path, b"x")
    folder.delete("a/b/c.jpg")
    assert not (tmp_path / "a/b").exists()
    folder.delete("a/d.jpg")
    assert not (tmp_path / "a").exists()
    folder.delete("e.jpg")
    assert tmp_path.is_dir()
    assert not files(tmp_path)


def test_deleting_what_is_not_there_is_no_error(folder, tmp_path):
    folder.write("a.jpg", b"x")
    (tmp_path / "folder.jpg").mkdir()
    for path in ("gone.jpg", "gone/b.jpg", "a.jpg/b.jpg", "folder.jpg"):
        folder.delete(path)
    assert files(tmp_path) == {"a.jpg": b"x"}
    assert (tmp_path / "folder.jpg").is_dir()


def test_a_location_becomes_an_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert local_folder("a/../b", "source") == tmp_path / "b"
    assert local_folder("~/x", "source").as_posix() == "/home/me/x"
    assert local_folder("/a//b/", "source").as_posix() == "/a/b"


@pytest.mark.parametrize("url", ["s3://bucket/a", "gs://b", "file:///tmp", "https://x"])
def test_urls_are_refused_by_the_name_of_their_setting(url):
    with pytest.raises(SettingsError, match=r"^destination: .*only local folders"):
        local_folder(url, "destination")


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ETIMEDOUT, ErrorCode.SOURCE_TIMEOUT),
        (errno.EIO, ErrorCode.SOURCE_FAILED),
        (errno.ESTALE, ErrorCode.SOURCE_FAILED),
    ],
)
def test_failures_of_the_system_are_told_apart(folder, tmp_path, monkeypatch, number, code):
    # A network file system that fails can't be had here, so that its failure is made up.
    (tmp_path / "a.jpg").write_bytes(b"x")

    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(storage, "_read_to_end", fail)
    assert code_of(folder.read, "a.jpg") is code


@pytest.mark.parametrize(("seconds", "year"), [(3 * 10**11, 9999), (-3 * 10**11, 1), (0, 1970)])
def test_a_time_that_no_calendar_has_is_the_nearest_that_one_has(seconds, year):
    status = SimpleNamespace(st_size=1, st_mtime_ns=seconds * 10**9)
    assert storage.version_of(status).mtime.year == year
