import os
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.tasks.storage.local_files import (
    is_mine,
    is_temporary,
    locked,
    opened_folder,
    replace_file,
    sync_filesystem,
    temporary_name,
    version_of,
)


@given(st.integers(-(2**33), 2**33), st.integers(0, 999_999_999))
def test_versions_are_exact_to_the_microsecond(seconds, nanoseconds):
    time = seconds * 1_000_000_000 + nanoseconds
    status = os.stat_result((0,) * 10, {"st_mtime_ns": time, "st_ctime_ns": time})
    expected = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds, microseconds=nanoseconds // 1000)
    assert version_of(status).mtime == expected


@pytest.mark.parametrize(("seconds", "year"), [(3 * 10**11, 9999), (-3 * 10**11, 1), (0, 1970)])
def test_times_beyond_the_calendar_are_clamped(seconds, year):
    status = SimpleNamespace(st_size=1, st_mtime_ns=seconds * 10**9, st_ctime_ns=seconds * 10**9)
    assert version_of(status).mtime.year == year


def test_temporary_names_are_recognised_and_never_used_twice():
    names = [os.fsdecode(temporary_name()) for _ in range(3)]
    assert len(set(names)) == 3
    for name in names:
        assert is_temporary(name)
        assert is_temporary(f"images/a/{name}")
        assert is_mine(name)
    assert is_temporary(".darkroom-12-3")
    assert not is_mine(f".darkroom-{os.getpid()}-3")
    assert not any(map(is_temporary, (".darkroom", "images/a.darkroom-1", ".darkroom-1/a", "a.jpg")))


def test_an_interrupted_write_leaves_the_former_file(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"old")

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with opened_folder(os.fsencode(tmp_path), []) as folder, pytest.raises(KeyboardInterrupt):
        replace_file(folder, b"a", b"new", durable=False)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old"}


def test_a_lock_lies_beside_its_file_and_provides_its_status(tmp_path):
    with opened_folder(os.fsencode(tmp_path), [b"a", b"b"], make=True) as folder:
        with locked(folder, b"lease.json") as status:
            assert status is None
        replace_file(folder, b"lease.json", b"12345", durable=False)
        with locked(folder, b"lease.json") as status:
            assert status.st_size == 5
    assert sorted(path.name for path in (tmp_path / "a/b").iterdir()) == ["lease.json", "lease.lock"]


def test_the_file_system_of_a_folder_is_synced(tmp_path):
    (tmp_path / "x").write_bytes(b"x")
    sync_filesystem(os.fsencode(tmp_path))
    with pytest.raises(FileNotFoundError):
        sync_filesystem(os.fsencode(tmp_path / "missing"))
