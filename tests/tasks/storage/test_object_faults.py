"""A real object store behind a proxy that answers with errors, cuts answers short or loses them."""

import os
from datetime import timedelta

import pytest

from darkroom.tasks.storage import object_client
from darkroom.tasks.storage.object_client import CutShort
from darkroom.tasks.storage.object_store import open_object_store
from darkroom.tasks.storage.store import ABSENT
from darkroom.tasks.storage.store_errors import Conflict, Denied, Failed, NotFound, Throttled
from tests.fault_proxy import Fault, fault_proxy


@pytest.fixture
def proxy(s3, monkeypatch):
    with fault_proxy(s3.url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


@pytest.fixture
def store(proxy, bucket):  # noqa: ARG001 - its environment
    return open_object_store(f"s3://{bucket}/p")


@pytest.fixture
def impatient(monkeypatch):
    """Retry requests once, without delay."""
    backoff = {"init_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=2), "base": 2}
    monkeypatch.setattr(object_client, "_RETRIES", {"max_retries": 1, "backoff": backoff})
    object_client._connect.cache_clear()
    yield
    object_client._connect.cache_clear()


OPERATIONS = {
    "get": lambda store: bytes(store.get("a").data) == b"12345",
    "open": lambda store: store.open("a").read() == b"12345",
    "head": lambda store: store.head("a").size == 5,
    "put": lambda store: store.put("b", b"x").size == 1,
    "put_file": lambda store: store.put_file("b", store.file) is None,
    "list": lambda store: [row for batch in store.list() for row in batch["path"].to_pylist()] == ["a"],
    "children": lambda store: list(store.children("")) == ["a"],
    "delete": lambda store: store.delete(["gone"]) is None,
}


@pytest.mark.parametrize("does", [(500, "InternalError"), (503, "SlowDown"), "reset"], ids=str)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_passing_faults_are_retried(s3, bucket, store, proxy, operation, does, tmp_path):
    s3.plant(bucket, "p/a", b"12345")
    store.file = tmp_path / "file"
    store.file.write_bytes(b"x")
    fault = Fault(does, times=2)
    proxy.faults.append(fault)
    assert OPERATIONS[operation](store)
    assert fault.times == 0


def test_is_empty_sends_one_request_however_many_objects_there_are(s3, bucket, store, proxy):
    assert store.is_empty()
    for number in range(1100):
        s3.plant(bucket, f"p/{number:04d}", b"x")
    before = len(proxy.requests)
    assert not store.is_empty()
    assert len(proxy.requests) == before + 1


@pytest.mark.parametrize(("does", "kind"), [((503, "SlowDown"), Throttled), ((500, "x"), Failed), ("reset", Failed)])
def test_a_fault_that_outlasts_the_retries_is_a_transient_error(s3, bucket, impatient, store, proxy, does, kind):  # noqa: ARG001
    proxy.faults.append(Fault(does, times=99))
    with pytest.raises(kind) as caught:
        store.get("a")
    assert caught.value.transient
    assert len(proxy.requests) == 2


@pytest.mark.parametrize("code", ["AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"])
def test_wrong_credentials_are_not_retried(s3, bucket, store, proxy, code):  # noqa: ARG001
    proxy.faults.append(Fault((403, code), times=99))
    with pytest.raises(Denied, match=f"refuses these credentials \\({code}\\)"):
        store.get("a")
    with pytest.raises(Denied):
        store.put("a", b"x", expected=ABSENT)
    assert len(proxy.requests) == 2


def test_an_expired_token_is_a_denial(store, proxy):
    proxy.faults.append(Fault((400, "ExpiredToken"), times=99))
    with pytest.raises(Denied, match="ExpiredToken"):
        store.get("a")


def test_a_body_that_is_cut_short_is_read_again(s3, bucket, store, proxy, tmp_path):
    data = os.urandom(300_000)
    s3.plant(bucket, "p/a", data)
    for read in (
        lambda: bytes(store.get("a").data),
        lambda: store.local("a", tmp_path).read_bytes(),
        lambda: store.open("a").read(),
    ):
        fault = Fault("cut", methods="GET", times=2)
        proxy.faults.append(fault)
        assert read() == data
        assert fault.times == 0


def test_a_listing_that_is_cut_short_goes_on(s3, bucket, store, proxy):
    for number in range(1100):
        s3.plant(bucket, f"p/a/{number:04d}", b"x")
    for read in (
        lambda: [row for each in store.list() for row in each["path"].to_pylist()],
        lambda: store.children("a"),
    ):
        fault = Fault("cut", methods="GET", times=2)
        proxy.faults.append(fault)
        assert len(list(read())) == 1100
        assert fault.times == 0


def test_an_answer_that_is_always_cut_short_is_a_transient_error(s3, bucket, store, proxy):
    s3.plant(bucket, "p/a", b"12345")
    proxy.faults.append(Fault("cut", methods="GET", times=999))
    with pytest.raises(CutShort) as caught:
        store.get("a")
    assert caught.value.transient


def test_an_object_replaced_or_deleted_since_it_was_listed(s3, bucket, store):
    s3.plant(bucket, "p/a", b"1")
    s3.plant(bucket, "p/b", b"1")
    [batch] = store.list()
    s3.plant(bucket, "p/a", b"22")
    s3.client.delete_object(Bucket=bucket, Key="p/b")
    found = store.get("a")
    assert (bytes(found.data), found.version.size) == (b"22", 2)
    assert found.version.etag != batch["etag"][0].as_py()
    with pytest.raises(NotFound):
        store.get("b")


@pytest.mark.parametrize("does", ["lost", "reset", (503, "SlowDown"), (500, "InternalError")], ids=str)
def test_a_conditional_put_whose_answer_is_lost_has_succeeded_once(s3, bucket, store, proxy, does):
    fault = Fault(does, methods="PUT", times=2)
    proxy.faults.append(fault)
    created = store.put("lease", b"mine 1", expected=ABSENT)
    assert fault.times == 0
    assert created == store.head("lease")
    with pytest.raises(Conflict):
        store.put("lease", b"other", expected=ABSENT)

    fault.times = 1
    replaced = store.put("lease", b"mine 2", expected=created)
    assert replaced == store.head("lease")
    with pytest.raises(Conflict):
        store.put("lease", b"other", expected=created)
    assert s3.contents(bucket) == {"p/lease": b"mine 2"}


def test_after_a_lost_answer_the_object_of_another_writer_is_a_conflict(s3, bucket, store, proxy):
    s3.plant(bucket, "p/lease", b"another's")
    fault = Fault("lost", methods="PUT")
    proxy.faults.append(fault)
    with pytest.raises(Conflict):
        store.put("lease", b"mine", expected=ABSENT)
    assert fault.times == 0
    assert s3.contents(bucket) == {"p/lease": b"another's"}
