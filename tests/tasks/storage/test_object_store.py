import os

import pytest

from darkroom.tasks.storage import object_store
from darkroom.tasks.storage.object_store import PART_BYTES, open_object_store
from darkroom.tasks.storage.store_errors import Conflict
from tests.tasks.storage.conformance import BucketTests, split


@pytest.fixture(params=["", "some/prefix"])
def store(request, s3):
    bucket = s3.make_bucket()
    return open_object_store(f"s3://{bucket}/{request.param}".removesuffix("/"))


class TestS3(BucketTests):
    @pytest.fixture(autouse=True)
    def _server(self, s3):
        self.server = s3


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.JPG", "image/jpeg"),
        ("a.png", "image/png"),
        ("a.webp", "image/webp"),
        ("m.parquet", "application/vnd.apache.parquet"),
        ("a/lease.json", "application/json"),
        ("jpg", "image/jpeg"),
        ("x", "application/octet-stream"),
    ],
)
def test_objects_have_a_content_type(s3, store, name, kind, tmp_path):
    bucket, start = split(store)
    file = tmp_path / "file"
    file.write_bytes(b"x")
    for write in (lambda: store.put(name, b"x"), lambda: store.put_file(name, file)):
        write()
        assert s3.content_type(bucket, start + name) == kind


def test_a_large_file_is_put_in_parts(s3, store, tmp_path):
    data = os.urandom(PART_BYTES + 12_345)
    (tmp_path / "large").write_bytes(data)
    store.put_file("large", tmp_path / "large")
    bucket, start = split(store)
    assert s3.contents(bucket) == {f"{start}large": data}
    assert bytes(store.get("large").data) == data
    assert store.local("large", tmp_path).read_bytes() == data
    with store.open("large") as file:
        assert file.read() == data


def test_objects_are_deleted_in_batches(s3, store, monkeypatch):
    monkeypatch.setattr(object_store, "DELETED_AT_ONCE", 10)
    names = [f"many/{number:04d}" for number in range(21)]
    bucket, start = split(store)
    for name in names:
        s3.plant(bucket, start + name, b"")
    store.delete([*names, "gone"])
    assert s3.contents(bucket) == {}


def test_a_file_that_is_replaced_while_it_is_read_is_a_conflict(store):
    store.put("a", os.urandom(3 << 20))
    with store.open("a") as file, pytest.raises(Conflict):
        store.put("a", os.urandom(3 << 20))
        file.read()
