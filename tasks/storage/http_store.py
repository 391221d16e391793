"""A web server as a source."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import cache

import httpx

from darkroom.tasks.storage.store import Batches, Object, Place, Skip, Skipped, Source, Version
from darkroom.tasks.storage.store_errors import Denied, Failed, NotFound, StorageError, Throttled, TimedOut, TooLarge

TIMEOUT_SECONDS = 30.0
"""How long a server may take to accept a connection, or to send the next bytes."""

CONNECTIONS = 32

MAX_LENGTH_DIGITS = 19
"""Lengths with as many digits are not believed: they may exceed 64 bits."""

_STATUS_ERRORS: dict[int, type[StorageError]] = {
    401: Denied,
    403: Denied,
    404: NotFound,
    408: TimedOut,
    410: NotFound,
    429: Throttled,
    451: Denied,
    503: Throttled,
    504: TimedOut,
}
"""Errors by HTTP status; other statuses from 400 are `Failed`."""


class HttpStore(Source):
    """The files of a web server, by the paths of their URLs, which may end with a query.

    Args:
        location: the URL's scheme, host and port.
    """

    is_remote = True

    def __init__(self, location: str) -> None:
        self._location = location

    @property
    def location(self) -> str:
        """The URL up to its path."""
        return self._location

    def get_into(self, path: str, place: Place, *, max_bytes: int = sys.maxsize) -> Object:
        """Read the body of an answer into memory that `place` returns."""
        with self._answer("GET", path) as answer:
            size = _content_length(answer)
            if size is not None and size > max_bytes:
                raise TooLarge(path, f"the file has {size:,} bytes", self.where(path))
            data = bytearray()
            for chunk in answer.iter_bytes():
                data += chunk
                if len(data) > max_bytes:
                    raise TooLarge(path, f"the file has more than {max_bytes:,} bytes", self.where(path))
            view = place(len(data))[: len(data)]
            view[:] = data
            return Object(view, _version(answer, len(data)))

    def get_start(self, path: str, size: int) -> bytes:
        """Return the first bytes of the body of an answer."""
        with self._answer("GET", path) as answer:
            return next(answer.iter_bytes(size), b"")

    def head(self, path: str) -> Version:
        """Return a file's version from the headers of an answer, any of which a server may leave out."""
        with self._answer("HEAD", path) as answer:
            return _version(answer, _content_length(answer))

    def list(self, prefix: str = "", *, skip: Skip | None = None, skipped: Skipped | None = None) -> Batches:  # noqa: ARG002
        """Raise: a web server lists nothing."""
        raise Denied(prefix, "a web server can't be listed", self.where(prefix))

    @contextmanager
    def _answer(self, method: str, path: str) -> Iterator[httpx.Response]:
        try:
            with _client().stream(method, self.where(path)) as answer:
                if answer.status_code >= httpx.codes.BAD_REQUEST:
                    kind = _STATUS_ERRORS.get(answer.status_code, Failed)
                    reason = f"the server answered {answer.status_code} {answer.reason_phrase}".rstrip()
                    raise kind(path, reason, self.where(path))
                yield answer
        except httpx.TimeoutException as error:
            raise TimedOut(path, f"the server did not answer within {TIMEOUT_SECONDS:g} s", self.where(path)) from error
        except (httpx.InvalidURL, UnicodeError) as error:  # a host name can't be encoded
            raise NotFound(path, f"its URL is not valid: {error}", self.where(path)) from error
        except httpx.HTTPError as error:
            raise Failed(path, f"the connection failed: {error}", self.where(path)) from error


@cache
def _client() -> httpx.Client:
    """Return this process's client, whose connections its threads share."""
    # Without compression, the length of an answer is that of the file.
    headers = {"User-Agent": "darkroom", "Accept-Encoding": "identity"}
    limits = httpx.Limits(max_connections=CONNECTIONS)
    return httpx.Client(headers=headers, follow_redirects=True, timeout=TIMEOUT_SECONDS, limits=limits)


def _content_length(answer: httpx.Response) -> int | None:
    length = answer.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() and len(length) < MAX_LENGTH_DIGITS else None


def _version(answer: httpx.Response, size: int | None) -> Version:
    mtime = None
    with suppress(ValueError, OverflowError):  # years before 1 and after 9999
        found = parsedate_to_datetime(answer.headers.get("Last-Modified", ""))
        mtime = (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    return Version(size, mtime, answer.headers.get("ETag"))
