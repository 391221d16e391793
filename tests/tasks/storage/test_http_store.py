import socket
from datetime import UTC, datetime

import pytest

from darkroom.tasks.storage import http_store
from darkroom.tasks.storage.http_store import HttpStore
from darkroom.tasks.storage.store_errors import Denied, Failed, NotFound, Throttled, TimedOut, TooLarge
from tests.web_server import Answer, web_server

DATED = {"ETag": '"1"', "Last-Modified": "Sun, 01 Nov 2026 12:00:00 GMT"}


@pytest.fixture(scope="module")
def web():
    with web_server() as server:
        yield server


def test_a_file_is_read_with_its_version(web):
    web.answers["/a%20b.jpg?x=1/2"] = Answer(b"12345", headers=DATED)
    store = HttpStore(web.url)
    found = store.get("a%20b.jpg?x=1/2")
    assert bytes(found.data) == b"12345"
    assert found.version == store.head("a%20b.jpg?x=1/2")
    assert found.version.mtime == datetime(2026, 11, 1, 12, tzinfo=UTC)
    assert (found.version.size, found.version.etag) == (5, '"1"')
    assert store.get_start("a%20b.jpg?x=1/2", 2) == b"12"


def test_a_server_that_sends_neither_length_nor_date(web):
    web.answers["/bare"] = Answer(b"12345", length=-1)
    store = HttpStore(web.url)
    assert store.head("bare").size is None
    found = store.get("bare", max_bytes=5)
    assert (bytes(found.data), found.version.size) == (b"12345", 5)
    with pytest.raises(TooLarge, match="more than 4 bytes"):
        store.get("bare", max_bytes=4)


def test_a_file_that_is_too_large_is_refused_by_its_header(web):
    web.answers["/large"] = Answer(b"12345")
    with pytest.raises(TooLarge, match="the file has 5 bytes"):
        HttpStore(web.url).get("large", max_bytes=4)


def test_redirects_are_followed(web):
    web.answers["/moved"] = Answer(status=302, headers={"Location": "/here"})
    web.answers["/here"] = Answer(b"1")
    assert bytes(HttpStore(web.url).get("moved").data) == b"1"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        *[(404, NotFound), (410, NotFound), (401, Denied), (403, Denied), (451, Denied), (418, Failed), (500, Failed)],
        *[(429, Throttled), (503, Throttled), (408, TimedOut), (504, TimedOut)],
    ],
)
def test_error_statuses_become_storage_errors(web, status, error):
    web.answers["/bad"] = Answer(b"no", status=status)
    for ask in (HttpStore(web.url).get, HttpStore(web.url).head):
        with pytest.raises(error, match=f"the server answered {status}") as raised:
            ask("bad")
        assert type(raised.value) is error


def test_a_body_that_is_cut_short_is_an_error(web):
    web.answers["/cut"] = Answer(b"123", length=10)
    with pytest.raises(Failed, match="the connection failed"):
        HttpStore(web.url).get("cut")


def test_a_silent_server_times_out_and_a_missing_one_fails(monkeypatch):
    monkeypatch.setattr(http_store, "TIMEOUT_SECONDS", 0.2)
    http_store._client.cache_clear()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        store = HttpStore(f"http://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(TimedOut, match=r"did not answer within 0.2 s"):
            store.get("a")
    with pytest.raises(Failed, match="the connection failed"):
        store.get("a")
    http_store._client.cache_clear()


@pytest.mark.parametrize("host", ["127..0", "example..invalid", "x" * 64 + ".invalid"])
def test_a_host_that_no_url_can_have_is_not_found(host):
    with pytest.raises(NotFound, match="its URL is not valid"):
        HttpStore(f"http://{host}").head("a.jpg")


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Length": "9" * 19},
        {"Last-Modified": "Fri, 31 Dec 9999 23:59:59 -0900"},
        {"Last-Modified": f"Fri, {'9' * 20} Dec 2026 23:59:59 GMT"},
    ],
)
def test_headers_that_make_no_sense_are_ignored(web, headers):
    web.answers["/odd"] = Answer(b"", length=-1, headers=headers)
    assert (HttpStore(web.url).head("odd").size, HttpStore(web.url).head("odd").mtime) == (None, None)
