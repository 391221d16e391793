import errno
import os
import pickle

import pytest

from darkroom.tasks.errors import DarkroomError, DestinationError, SettingsError
from darkroom.tasks.storage.store_errors import (
    Conflict,
    Denied,
    Failed,
    NoSpace,
    NotFound,
    Obstructed,
    Throttled,
    TimedOut,
    TooLarge,
    reading,
    reading_source,
    writing,
)

ALL = (Conflict, Denied, Failed, NoSpace, NotFound, Throttled, TimedOut, TooLarge)


@pytest.mark.parametrize("kind", ALL)
def test_an_error_has_its_reason_and_location_and_can_be_pickled(kind):
    error = pickle.loads(pickle.dumps(kind("a/b.jpg", "it is closed", "/data/a")))  # noqa: S301 - our own
    assert (type(error), error.path, error.reason, error.at) == (kind, "a/b.jpg", "it is closed", "/data/a")
    assert str(error) == "/data/a: it is closed"
    assert error.transient == (kind in {Conflict, Failed, Throttled, TimedOut})


OBSTRUCTED = Obstructed("a", "Is a directory", "/data/a", "a folder where Darkroom has a file")


def test_an_obstacle_is_named_for_reads_and_writes():
    for context in (reading(), writing("/data")):
        with pytest.raises(SettingsError, match=r"/data/a is a folder where Darkroom has a file\. Move"), context:
            raise pickle.loads(pickle.dumps(OBSTRUCTED))  # noqa: S301 - our own


def test_a_store_that_does_not_answer_ends_a_run_and_means_no_damage():
    with pytest.raises(DarkroomError, match=r"^/data/a can't be read: it is slow\. Give the same command"), reading():
        raise Throttled("a", "it is slow", "/data/a")


def test_errors_of_a_source_are_not_those_of_the_destination():
    with (
        pytest.raises(SettingsError, match=r"^source: s3://b can't be read: no\.$"),
        writing("/data"),
        reading_source(),
    ):
        raise Denied("a", "no", "s3://b")
    slow = pytest.raises(DarkroomError, match=r"^source: s3://b can't be read: slow\. Give the same command again\.$")
    with slow as caught, writing("/data"), reading_source():
        raise Throttled("a", "slow", "s3://b")
    assert not isinstance(caught.value, SettingsError | DestinationError)


def test_a_missing_object_is_left_to_the_caller():
    with pytest.raises(NotFound), reading():
        raise NotFound("a", "x", "/data/a")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            Denied("a", "Permission denied", "/data/a"),
            "/data/a can't be written to: Permission denied. Grant this user permission",
        ),
        (NoSpace("a", "No space", "/data/a"), "/data can't be written to: No space. Free some space"),
        (OSError(errno.EIO, "x"), f"/data can't be written to: {os.strerror(errno.EIO)}"),
    ],
)
def test_errors_of_writing_name_their_location(error, message):
    with pytest.raises(DestinationError, match=message), writing("/data"):
        raise error


def test_other_errors_are_left_alone():
    for error in (ZeroDivisionError(), OSError("of a library")):
        with pytest.raises(type(error)), writing("/data"), reading():
            raise error
