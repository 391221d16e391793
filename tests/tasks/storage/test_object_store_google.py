"""Reading from a real Google Cloud Storage server; none that runs here takes what the client writes."""

import os

import pytest

from darkroom.tasks.errors import SettingsError
from darkroom.tasks.settings import Rules
from darkroom.tasks.storage.locations import check_source, open_source
from darkroom.tasks.storage.store_errors import NotFound, TooLarge
from tests.gcs_server import gcs_server
from tests.tasks.helpers import manifest_rows, prepare, write_image
from tests.tasks.shards import run


@pytest.fixture(scope="module")
def _server():
    with gcs_server() as server:
        yield server


@pytest.fixture
def server(_server, monkeypatch):
    for name, value in _server.environment.items():
        monkeypatch.setenv(name, value)
    return _server


@pytest.mark.parametrize("prefix", ["", "some/prefix"])
def test_objects_are_listed_and_read(server, prefix):
    bucket = server.make_bucket()
    large = os.urandom(3 << 20)
    objects = {"a.jpg": b"12345", "é ü/100%.jpg": b"x", "sub/empty.jpg": b"", "sub/large.jpg": large}
    for path, data in objects.items():
        server.plant(bucket, f"{prefix}/{path}".lstrip("/"), data)
    server.plant(bucket, "some/prefixed/other.jpg", b"beside it")
    store = open_source(f"gs://{bucket}/{prefix}", Rules())
    rows = {row["path"]: row for batch in store.list() for row in batch.to_pylist()}
    assert rows.keys() - {"some/prefixed/other.jpg"} == objects.keys()
    for path, data in objects.items():
        found = store.get(path)
        assert bytes(found.data) == data
        assert (found.version.size, found.version.etag) == (rows[path]["size"], rows[path]["etag"])
        assert store.head(path) == found.version
        assert store.get_start(path, 3) == data[:3]
    with store.open("sub/large.jpg") as file:
        file.seek(2 << 20)
        assert file.read() == large[2 << 20 :]
    assert sorted(store.children("sub")) == ["empty.jpg", "large.jpg"]
    with pytest.raises(NotFound):
        store.get("gone.jpg")
    with pytest.raises(TooLarge):
        store.get("a.jpg", max_bytes=4)


def test_a_bucket_that_holds_nothing_is_refused(server):
    with pytest.raises(SettingsError, match="no object below"):
        check_source(f"gs://{server.make_bucket()}")


def test_a_bucket_as_the_source_of_a_run(server, place, tmp_path):
    bucket = server.make_bucket()
    for number in range(3):
        write_image(tmp_path / "image.jpg", seed=number)
        server.plant(bucket, f"photos/{number}.jpg", (tmp_path / "image.jpg").read_bytes())
    run(f"gs://{bucket}/photos", place)
    assert {path: row["status"] for path, row in manifest_rows(place).items()} == dict.fromkeys(
        ("0.jpg", "1.jpg", "2.jpg"), "ok"
    )
    assert prepare(f"gs://{bucket}/photos", place, run_id="again")[2].nothing_to_do
    write_image(tmp_path / "image.jpg", seed=9)
    server.plant(bucket, "photos/1.jpg", (tmp_path / "image.jpg").read_bytes())
    assert prepare(f"gs://{bucket}/photos", place, run_id="changed")[2].reasons == {"changed": 1}
