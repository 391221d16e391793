import hashlib

import pytest

from darkroom.tasks.dataset.outputs import has_bytes
from darkroom.tasks.errors import SettingsError
from darkroom.tasks.storage.store_errors import Denied
from tests.tasks.storage.memory import MemoryStore


def test_only_an_output_with_the_same_bytes_counts():
    store = MemoryStore()
    store.put("images/a.jpg", b"data")
    sha256 = hashlib.sha256(b"data").hexdigest()
    assert has_bytes(store, "images/a.jpg", sha256)
    assert not has_bytes(store, "images/a.jpg", hashlib.sha256(b"Data").hexdigest())
    assert not has_bytes(store, "images/a.jpg", None)
    assert not has_bytes(store, "images/b.jpg", sha256)


def test_an_output_that_may_not_be_read_is_an_error():
    store = MemoryStore()
    store.put("images/a.jpg", b"data")
    store.fail("get", Denied)
    with pytest.raises(SettingsError, match="Grant this user permission to read all outputs"):
        has_bytes(store, "images/a.jpg", "0f" * 32)
