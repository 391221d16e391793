"""The object store on a real Azure Blob server; a client of the whole container checks its objects."""

import obstore
import pytest
from obstore.store import AzureStore

from darkroom.tasks.errors import SettingsError
from darkroom.tasks.storage.bucket_checks import check_bucket_destination
from darkroom.tasks.storage.object_keys import to_path
from darkroom.tasks.storage.object_store import open_object_store
from tests.azure_server import azure_server
from tests.tasks.storage.conformance import StoreTests


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with azure_server(tmp_path_factory.mktemp("azure")) as server:
        yield server


@pytest.fixture(params=["", "some/prefix"])
def store(request, server, monkeypatch):
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return open_object_store(f"az://{server.make_container()}/{request.param}".removesuffix("/"))


def around(store):
    """Return a client of a store's container, and the prefix of the store's keys there."""
    container, _, prefix = store.location.removeprefix("az://").partition("/")
    return AzureStore(container, client_options={"allow_http": True}), f"{prefix}/" if prefix else ""


class TestAzure(StoreTests):
    def contents(self, store):
        client, start = around(store)
        keys = [found["path"] for found in obstore.list(client).collect()]
        return {to_path(key.removeprefix(start)): bytes(obstore.get(client, key).bytes()) for key in keys}

    def plant(self, store, path, data):
        client, start = around(store)
        obstore.put(client, start + path, data)

    def test_the_store_heeds_conditions(self, store):
        check_bucket_destination(store)
        assert self.contents(store) == {}

    def test_objects_have_a_content_type(self, store):
        store.put("a.jpg", b"x")
        client, start = around(store)
        assert obstore.get(client, f"{start}a.jpg").attributes["Content-Type"] == "image/jpeg"


def test_a_container_that_does_not_exist(store):  # noqa: ARG001 - its environment
    with pytest.raises(SettingsError, match="the bucket of az://no-such-container/x does not exist"):
        check_bucket_destination(open_object_store("az://no-such-container/x"))
