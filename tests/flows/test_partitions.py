"""Which folders are partitions; tests/deployments/test_deploy.py runs them."""

from __future__ import annotations

from pathlib import Path

import pytest

from darkroom.flows.partitions import find_partitions
from darkroom.tasks.errors import GuardError, SettingsError
from tests.s3_server import S3Server


def test_the_folders_of_a_source_are_its_partitions(tmp_path: Path, s3: S3Server):
    for name in ("b", "a b", ".hidden", "@eaDir", "__MACOSX"):
        (tmp_path / name).mkdir()
    for name in ("notes.txt", "._x.jpg"):
        (tmp_path / name).touch()
    assert find_partitions(str(tmp_path)) == ["a b", "b"]
    bucket = s3.make_bucket()
    for key in ("photos/x/1.jpg", "photos/y/2.jpg", "other/z/3.jpg"):
        s3.plant(bucket, key, b"data")
    assert find_partitions(f"s3://{bucket}/photos") == ["x", "y"]


def test_images_in_no_partition_are_refused(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "loose.JPG").touch()
    with pytest.raises(SettingsError, match=rf"^source: {tmp_path}/loose.JPG lies beside the folders"):
        find_partitions(str(tmp_path))


def test_a_source_without_folders_is_refused(tmp_path: Path):
    with pytest.raises(GuardError, match=rf"^The source holds no folders of images\. Is {tmp_path} mounted"):
        find_partitions(str(tmp_path))


def test_a_list_has_no_partitions(tmp_path: Path):
    (tmp_path / "list.txt").touch()
    with pytest.raises(SettingsError, match="is a list of images, which has no partitions"):
        find_partitions(str(tmp_path / "list.txt"))
