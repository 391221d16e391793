"""Clients of object stores, configured by the environment and profiles; translation of their errors."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotModifiedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import AzureStore, GCSStore, S3Store

from darkroom.tasks.storage.aws_profile import profile_config
from darkroom.tasks.storage.store_errors import (
    Conflict,
    Denied,
    Failed,
    NoSpace,
    NotFound,
    StorageError,
    Throttled,
    TimedOut,
)

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

Client = S3Store | GCSStore | AzureStore

_VARIABLES = ("AWS_", "GOOGLE_", "AZURE_")
_ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT", "GOOGLE_BASE_URL")

RETRY_SECONDS = 40.0
"""How long a request is retried after server errors or without an answer."""

_RETRIES: RetryConfig = {
    "max_retries": 10,
    "retry_timeout": timedelta(seconds=RETRY_SECONDS),
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=8), "base": 2},
}
_NO_RETRY: RetryConfig = {"max_retries": 0}

CUT_TRIES = 4

P = ParamSpec("P")
R = TypeVar("R")

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_MISSING_BUCKETS = {"NoSuchBucket", "ContainerNotFound"}
_EXPIRED = {
    "ExpiredToken",
    "RequestTimeTooSkewed",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}


@dataclass(frozen=True, slots=True)
class Clients:
    """Two clients of the same prefix of a bucket."""

    patient: Client
    """Repeats requests; for idempotent ones."""

    once: Client
    """Sends each request once; for conditional ones, whose repetition may fail because the first has succeeded."""


def connect(scheme: str, bucket: str, prefix: str) -> Clients:
    """Return the clients of a prefix of a bucket, cached for each state of the environment.

    Args:
        scheme: `s3`, `gs` or `az`.
        bucket: name of the bucket, or of Azure's container.
        prefix: without a trailing slash; empty for the whole bucket.

    Raises:
        BaseError: the environment's settings contradict each other, or a key is malformed.
    """
    environment = tuple(sorted(each for each in os.environ.items() if each[0].startswith(_VARIABLES)))
    return _connect(scheme, bucket, prefix, environment)


@lru_cache(maxsize=32)
def _connect(scheme: str, bucket: str, prefix: str, environment: tuple[tuple[str, str], ...]) -> Clients:
    variables = dict(environment)
    config = profile_config(variables) if scheme == "s3" else {}
    endpoints = [variables.get(name, "") for name in _ENDPOINTS] + [str(config.get("endpoint", ""))]
    options: ClientConfig = {
        "allow_http": any(each.startswith("http://") for each in endpoints),
        "connect_timeout": timedelta(seconds=10),
        "read_timeout": timedelta(seconds=30),
        "timeout": timedelta(minutes=10),
    }

    def make(retries: RetryConfig) -> Client:
        common: dict[str, Any] = {"prefix": prefix or None, "client_options": options, "retry_config": retries}
        kinds: dict[str, Callable[..., Client]] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
        return kinds[scheme](bucket, **common, **config)

    return Clients(make(_RETRIES), make(_NO_RETRY))


class CutShort(Failed):
    """The connection broke off within an answer, which the client itself does not retry."""


def repeated(request: Callable[P, R]) -> Callable[P, R]:
    """Decorate an idempotent request: try it up to `CUT_TRIES` times while its answers are cut short."""

    @wraps(request)
    def repeat(*args: P.args, **kwargs: P.kwargs) -> R:
        for _ in range(CUT_TRIES - 1):
            with suppress(CutShort):
                return request(*args, **kwargs)
        return request(*args, **kwargs)

    return repeat


def is_cut_short(error: Exception) -> bool:
    """Return whether a client's error means that an answer was cut short."""
    return not _STATUS.search(str(error)) and "response body" in str(error)


@contextmanager
def translated(path: str, where: str) -> Iterator[None]:
    """Translate a client's errors about an object into `StorageError`s; those of local files have a number."""
    try:
        yield
    except (BaseError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise storage_error(error, path, where) from error


def storage_error(error: Exception, path: str, where: str) -> StorageError:
    """Return a client's error as a `StorageError`."""
    text = str(error)
    code = match[1] if (match := _CODE.search(text)) else ""
    status = int(match[1]) if (match := _STATUS.search(text)) else 0
    if is_cut_short(error):
        return CutShort(path, "the connection broke off within the store's answer", where)
    kind, reason = _permanent(error, code, status) or _transient(text, code, status)
    return kind(path, reason, where)


def _permanent(error: Exception, code: str, status: int) -> tuple[type[StorageError], str] | None:
    """Return the type and reason of a permanent error; None if it is transient."""
    if code in _MISSING_BUCKETS:
        return NotFound, "the bucket does not exist"
    if isinstance(error, FileNotFoundError):
        return NotFound, "there is no such object"
    if isinstance(error, AlreadyExistsError | PreconditionError | NotModifiedError):
        return Conflict, "it was changed by another process"
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or status in {401, 403} or code in _EXPIRED:
        return Denied, f"the store refuses these credentials{f' ({code})' if code else ''}"
    if isinstance(error, ValueError):
        return Denied, f"the object-store client can't send such a request: {_first_line(str(error))}"
    return (NoSpace, "the store is full (HTTP 507)") if status == 507 else None


def _transient(text: str, code: str, status: int) -> tuple[type[StorageError], str]:
    """Return the type and reason of a transient error."""
    if status in {429, 503} or code == "SlowDown":
        return Throttled, f"the store asks for fewer requests (HTTP {status})"
    if status:
        return Failed, f"the store answers with an error (HTTP {status}{f', {code}' if code else ''})"
    if "timed out" in text or "TimedOut" in text:
        return TimedOut, "the store did not answer in time"
    return Failed, f"the store can't be reached: {_first_line(text)}"


def _first_line(text: str) -> str:
    return text.partition("\n")[0][:200]
