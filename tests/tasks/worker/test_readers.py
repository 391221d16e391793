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
    assert readers.results([readers.start(pow, number, 2) for number in range(5)]) == [0, 1, 4, 9, 16]
    with pytest.raises(ValueError, match="invalid literal"):
        readers.results([fails])
    with pytest.raises(TimeoutError, match="its own"):
        readers.results([readers.start(fail_with, TimeoutError("its own"))])


def test_hung_reads_delay_no_other_read(forever):
    readers = Readers(0.05)
    hangs = [readers.start(forever) for _ in range(4)]
    after = readers.start(pow, 3, 2)
    with pytest.raises(TimeoutError):
        readers.results([hangs[0]])
    assert after.result(60) == 9


def test_too_many_hung_reads_end_the_shard(forever):
    readers = Readers(0.01)
    for _ in range(MAX_HUNG):
        with pytest.raises(TimeoutError):
            readers.results([readers.start(forever)])
    with pytest.raises(DarkroomError, match=r"8 reads took longer than max_read_seconds = 0\.01"):
        readers.results([readers.start(forever)])


def test_threads_are_reused_and_end():
    readers = Readers(60)
    names = set()
    for _ in range(20):
        [ident] = readers.results([readers.start(threading.get_ident)])
        names.add(ident)
        wait_until_idle(readers)
    assert len(names) == 1
    [thread] = [each for each in threading.enumerate() if each.ident in names]
    readers.close()
    thread.join(60)
    assert not thread.is_alive()


def wait_until_idle(readers):
    assert readers._idle.acquire(timeout=60)
    readers._idle.release()


def test_the_thread_of_a_hung_read_ends_once_the_read_returns():
    readers, event = Readers(0.01), threading.Event()
    hangs = readers.start(lambda: event.wait(60) and threading.current_thread())
    with pytest.raises(TimeoutError):
        readers.results([hangs])
    readers.close()
    event.set()
    thread = hangs.result(60)
    thread.join(60)
    assert not thread.is_alive()
