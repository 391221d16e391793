"""Which storage errors are retried, and when."""

import random

import pytest

from darkroom.tasks.storage.retries import FIRST_BACKOFF_SECONDS, TRIES, with_retries
from darkroom.tasks.storage.store_errors import Conflict, Denied, Failed, StorageError, TimedOut


def failing(kind, times):
    """Return a function that fails `times` times, then returns its argument."""
    left = iter(range(times))

    def act(value):
        if next(left, None) is not None:
            raise kind("a.jpg", "made up", "/a.jpg")
        return value

    return act


@pytest.mark.parametrize("times", [1, TRIES - 1])
def test_transient_errors_are_retried_with_backoff(monkeypatch, delays, times):
    monkeypatch.setattr(random, "uniform", lambda *bounds: bounds[1])
    assert with_retries(failing(Failed, times), "done") == "done"
    assert delays == [FIRST_BACKOFF_SECONDS * 2**tried for tried in range(times)]


@pytest.mark.parametrize(("kind", "tries"), [(Conflict, TRIES), (Denied, 1)])
def test_other_errors_and_those_of_the_last_try_are_raised(delays, kind, tries):
    with pytest.raises(StorageError, match="made up"):
        with_retries(failing(kind, 100), "done")
    assert len(delays) == tries - 1


def test_delays_are_jittered(delays):
    for _ in range(8):
        with_retries(failing(TimedOut, 1), "done")
    assert len(set(delays)) == 8
    assert all(0 < delay <= FIRST_BACKOFF_SECONDS for delay in delays)
