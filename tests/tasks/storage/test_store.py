import time

import pytest

from darkroom.tasks.errors import SettingsError
from darkroom.tasks.storage import store_errors
from darkroom.tasks.storage.store import Skipped, exists, listed
from darkroom.tasks.storage.store_errors import Conflict, Denied, StorageError, Throttled
from tests.tasks.storage.conformance import StoreTests
from tests.tasks.storage.memory import MemoryStore

OPERATIONS = {
    "get": lambda store: store.get("a"),
    "open": lambda store: store.open("a"),
    "head": lambda store: store.head("a"),
    "put": lambda store: store.put("a", b"new"),
    "move": lambda store: store.move("a", "b"),
    "delete": lambda store: store.delete(["a"]),
    "list": lambda store: list(store.list()),
    "children": lambda store: list(store.children("")),
    "flush": lambda store: store.flush(),
}


@pytest.fixture
def store():
    return MemoryStore()


class TestMemory(StoreTests):
    def contents(self, store):
        return {path: data for path, (data, _) in store.objects.items()}

    def plant(self, store, path, data):
        MemoryStore.put(store, path, data)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_of_the_store_for_tests_can_fail_in_every_way(store, operation):
    kinds = [kind for kind in vars(store_errors).values() if isinstance(kind, type) and issubclass(kind, StorageError)]
    for kind in set(kinds) - {StorageError, store_errors.Obstructed}:
        store.put("a", b"old")
        store.fail(operation, kind)
        with pytest.raises(kind, match="made up"):
            OPERATIONS[operation](store)
        assert bytes(store.get("a").data) == b"old"
        OPERATIONS[operation](store)


def test_a_put_whose_answer_is_lost_has_happened(store):
    store.fail("put", Throttled, after=True)
    with pytest.raises(Throttled):
        store.put("a", b"x")
    assert exists(store, "a")


def test_faults_can_be_limited_to_one_object_and_latency_delays_requests(store):
    store.fail("put", Conflict, path="a", times=2)
    store.put("b", b"x")
    for _ in range(2):
        with pytest.raises(Conflict):
            store.put("a", b"x")
    store.put("a", b"x")
    store.latency = 0.02
    started = time.monotonic()
    store.head("a")
    assert time.monotonic() - started >= 0.02


def test_a_listing_of_a_source_that_fails_ends_the_run(store):
    store.put("a/b", b"1")
    assert [batch["path"].to_pylist() for batch in listed(store, "a", skip=lambda _: None, skipped=Skipped())] == [
        ["a/b"]
    ]
    store.fail("list", Denied)
    with pytest.raises(SettingsError, match=r"^source: .* can't be read"):
        list(listed(store, skip=lambda _: None, skipped=Skipped()))
