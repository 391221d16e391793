"""Reads in background threads, some of which hang."""

import threading

import pytest

from darkroom.tasks.errors import DarkroomError
from darkroom.tasks.worker.readers import MAX_HUNG, Readers


@pytest.fixture
def forever():
    """Yield a function that does not return before the test ends."""
    event = threading.Event()
    yield event.wait
    event.set()


def fail_with(error):
    raise error


def test_results_and_errors_reach_the_caller():
    readers = Readers(60)
    fails = readers.start(int, "x")
    assert [readers.result(readers.start(pow, number, 2)) for number in range(5)] == [0, 1, 4, 9, 16]
    with pytest.raises(ValueError, match="invalid literal"):
        readers.result(fails)
    with pytest.raises(TimeoutError, match="its own"):
        readers.result(readers.start(fail_with, TimeoutError("its own")))


def test_reads_that_hang_delay_no_other_read(forever):
    readers = Readers(0.05)
    hangs = [readers.start(forever) for _ in range(4)]
    after = readers.start(pow, 3, 2)
    with pytest.raises(TimeoutError):
        readers.result(hangs[0])
    assert after.result(60) == 9


def test_too_many_reads_that_hang_end_the_shard(forever):
    readers = Readers(0.01)
    for _ in range(MAX_HUNG):
        with pytest.raises(TimeoutError):
            readers.result(readers.start(forever))
    with pytest.raises(DarkroomError, match=r"8 reads took longer than max_read_seconds = 0\.01"):
        readers.result(readers.start(forever))
