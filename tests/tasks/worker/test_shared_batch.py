"""The memory that a worker shares with its codec process."""

import os
import resource
import threading

import pytest

from darkroom.tasks.errors import DarkroomError
from darkroom.tasks.worker.shared_batch import SIZE, Room, SharedBatch


def test_trim_returns_grown_memory():
    batch = SharedBatch.create()
    os.ftruncate(batch.descriptor, 3 * SIZE)
    batch.reset(b"orders")
    batch.place(2 * SIZE)[-1] = 1
    batch.keep(2 * SIZE)
    batch.trim()
    batch.reset(b"orders")
    assert batch.place(2 * SIZE)[-1] == 0, "the memory was returned to the system"


@pytest.mark.parametrize(("used", "left"), [(1 << 20, 7), ((1 << 20) + 1, 0)])
def test_trim_returns_used_memory_beyond_its_limit(used, left):
    batch = SharedBatch.create()
    batch.reset(b"")
    before = batch.head.used
    batch.place(2 << 20)[-1] = 7
    batch.keep(used - before)
    batch.trim(1 << 20)
    batch.reset(b"")
    assert batch.place(2 << 20)[-1] == left


def test_threads_that_reserve_memory_get_separate_bytes():
    batch, filled = SharedBatch.create(), []
    batch.reset(b"")

    def fill(number):
        room = Room(batch)
        room(1000)[:] = bytes([number]) * 1000
        start = room.start
        again = room(SIZE // 8 + number)
        again[:] = bytes([number]) * len(again)
        filled.append((number, start, room.start, len(again)))

    threads = [threading.Thread(target=fill, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    batch.refresh()
    for number, start, other, size in filled:
        assert bytes(batch._view[start : start + 1000]) == bytes([number]) * 1000
        assert set(batch._view[other : other + size]) == {number}
    assert len(filled) == 16


def test_a_retry_gets_the_same_memory():
    batch = SharedBatch.create()
    batch.reset(b"")
    room = Room(batch)
    room(100)[:] = b"x" * 100
    start = room.start
    assert bytes(room(50)) == b"x" * 50
    assert room.start == start


@pytest.mark.parametrize(
    ("limit", "most", "reason"),
    [
        (resource.RLIMIT_NOFILE, 3, r"Too many open files.*may open 3 files \('ulimit -n'\)"),
        (resource.RLIMIT_FSIZE, SIZE - 1, r"File too large.*20,971,519 bytes \('ulimit -f'"),
    ],
)
def test_the_error_names_the_limit_that_prevents_the_memory(limit, most, reason):
    usual = resource.getrlimit(limit)
    resource.setrlimit(limit, (most, usual[1]))
    try:
        with pytest.raises(DarkroomError, match=reason):
            SharedBatch.create()
    finally:
        resource.setrlimit(limit, usual)
    SharedBatch.create()
