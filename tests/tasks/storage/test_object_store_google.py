"""The object store on a real Google Cloud Storage server, to which a proxy translates the client's writes."""

import os

import pytest

from darkroom.tasks.errors import SettingsError
from darkroom.tasks.storage.bucket_checks import check_bucket_destination
from darkroom.tasks.storage.locations import check_source
from darkroom.tasks.storage.object_store import PART_BYTES, open_object_store
from tests.gcs_server import gcs_server
from tests.tasks.helpers import manifest_rows, prepare, write_image
from tests.tasks.shards import run
from tests.tasks.storage.conformance import BucketTests


@pytest.fixture(scope="module")
def _server():
    with gcs_server() as server:
        yield server


@pytest.fixture
def server(_server, monkeypatch):
    for name, value in _server.environment.items():
        monkeypatch.setenv(name, value)
    return _server


@pytest.fixture(params=["", "some/prefix"])
def store(request, server):
    return open_object_store(f"gs://{server.make_bucket()}/{request.param}".removesuffix("/"))


class TestGoogle(BucketTests):
    @pytest.fixture(autouse=True)
    def _access(self, server):
        self.server = server

    def test_the_store_heeds_conditions(self, store):
        check_bucket_destination(store)
        assert self.contents(store) == {}

    def test_a_large_file_is_put_in_parts(self, store, tmp_path):
        data = os.urandom(PART_BYTES + 12_345)
        (tmp_path / "large").write_bytes(data)
        store.put_file("large", tmp_path / "large")
        assert self.contents(store) == {"large": data}


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
