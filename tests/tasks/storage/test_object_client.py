import pytest
from obstore.exceptions import (
    AlreadyExistsError,
    GenericError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from darkroom.tasks.storage.object_client import connect, storage_error, translated
from darkroom.tasks.storage.store_errors import (
    Conflict,
    Denied,
    Failed,
    NoSpace,
    NotFound,
    Throttled,
    TimedOut,
)

ANSWER = (
    "Error performing GET http://x in 3ms - Server returned non-2xx status code: {}: <Error><Code>{}</Code></Error>"
)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (FileNotFoundError(ANSWER.format("404 Not Found", "NoSuchKey")), NotFound, "no such object"),
        (FileNotFoundError(ANSWER.format("404 Not Found", "NoSuchBucket")), NotFound, "bucket does not exist"),
        (AlreadyExistsError("x"), Conflict, "changed by another"),
        (PreconditionError("x"), Conflict, "changed by another"),
        (PermissionDeniedError(ANSWER.format("403 Forbidden", "AccessDenied")), Denied, r"credentials \(AccessDenied"),
        (UnauthenticatedError("x"), Denied, "credentials"),
        (GenericError(ANSWER.format("400 Bad Request", "ExpiredToken")), Denied, "ExpiredToken"),
        (ValueError("Could not parse path"), Denied, "can't send"),
        (GenericError(ANSWER.format("503 Slow", "SlowDown")), Throttled, "fewer requests"),
        (GenericError(ANSWER.format("429 Slow", "")), Throttled, "fewer requests"),
        (GenericError(ANSWER.format("507 Full", "")), NoSpace, "full"),
        (GenericError(ANSWER.format("500 Oops", "InternalError")), Failed, "HTTP 500, InternalError"),
        (GenericError("error: operation timed out"), TimedOut, "in time"),
        (GenericError("connection refused\nand more"), Failed, "can't be reached: connection refused$"),
    ],
)
def test_client_errors_become_storage_errors(error, kind, words):
    found = storage_error(error, "a", "s3://b/a")
    assert type(found) is kind
    assert (found.path, found.at) == ("a", "s3://b/a")
    with pytest.raises(kind, match=words), translated("a", "s3://b/a"):
        raise error


def test_clients_are_cached_until_the_environment_changes(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    first = connect("s3", "b", "p")
    assert connect("s3", "b", "p") is first
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    other = connect("s3", "b", "p")
    assert other is not first
    assert connect("s3", "b", "").patient.prefix is None
    assert first.patient.prefix == "p"
