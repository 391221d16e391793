import threading

import pytest

from darkroom.tasks.errors import DarkroomError
from darkroom.tasks.worker.readers import MAX_GIVEN_UP, Readers


@pytest.fixture
def forever():
    """What does not end before the test does."""
    event = threading.Event()
    yield event.wait
    event.set()


def test_results_and_errors_reach_whoever_waits():
    readers = Readers(2, 60)
    fails = readers.submit(int, "x")
    assert [readers.result(readers.submit(pow, number, 2)) for number in range(5)] == [0, 1, 4, 9, 16]
    with pytest.raises(ValueError, match="invalid literal"):
        readers.result(fails)
    own = readers.submit(fail_with, TimeoutError("its own"))
    with pytest.raises(TimeoutError, match="its own"):
        readers.result(own)
    readers.close()


def fail_with(error):
    raise error


def test_a_read_that_hangs_holds_up_nothing_else(forever):
    readers = Readers(1, 0.05)
    hangs = readers.submit(forever)
    after = readers.submit(pow, 3, 2)
    with pytest.raises(TimeoutError):
        readers.result(hangs)
    assert after.result(60) == 9
    readers.close()


def test_when_too_many_hang_it_is_said_so(forever):
    readers = Readers(1, 0.01)
    for _ in range(MAX_GIVEN_UP):
        with pytest.raises(TimeoutError):
            readers.result(readers.submit(forever))
    with pytest.raises(DarkroomError, match=r"8 reads took longer than max_read_seconds = 0\.01"):
        readers.result(readers.submit(forever))
    readers.close()


def test_after_the_end_nothing_is_begun():
    readers = Readers(1, 60)
    begun, ended, called = threading.Event(), threading.Event(), []
    running = readers.submit(lambda: begun.set() or ended.wait(60))
    readers.submit(called.append, 1)
    begun.wait(60)
    thread = next(each for each in threading.enumerate() if each.name == "read")
    readers.close()
    ended.set()
    assert running.result(60)
    thread.join(60)
    assert called == []
