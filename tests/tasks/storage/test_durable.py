import os

import pytest

from darkroom.tasks.storage import durable
from darkroom.tasks.storage.durable import replace_durably, sync_filesystem, write_durably


def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_name_before_anything_else(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor):
        done.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def replaced(old, new):
        done.append(("name", str(new)))
        replace(old, new)

    monkeypatch.setattr(durable.os, "fsync", synced)
    monkeypatch.setattr(durable.os, "replace", replaced)
    temporary, path = tmp_path / "x.tmp", tmp_path / "x"
    temporary.write_bytes(b"new")
    replace_durably(temporary, path)
    assert done == [("sync", str(temporary)), ("name", str(path)), ("sync", str(tmp_path))]


def test_a_small_file_is_replaced_whole(tmp_path):
    write_durably(tmp_path / "x", "old")
    write_durably(tmp_path / "x", "new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"x": "new"}


def test_the_file_system_of_a_folder_is_synced(tmp_path):
    (tmp_path / "x").write_bytes(b"x")
    sync_filesystem(tmp_path)
    with pytest.raises(FileNotFoundError):
        sync_filesystem(tmp_path / "missing")
