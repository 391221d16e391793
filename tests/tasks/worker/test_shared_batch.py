"""The memory that a worker shares with its codec process."""

import os
import resource

import pytest

from darkroom.tasks.errors import DarkroomError
from darkroom.tasks.worker.shared_batch import SIZE, SharedBatch


def test_trim_returns_grown_memory():
    batch = SharedBatch.create()
    os.ftruncate(batch.descriptor, 3 * SIZE)
    batch.reset(b"orders")
    batch.place(2 * SIZE)[-1] = 1
    batch.keep(2 * SIZE)
    batch.trim()
    batch.reset(b"orders")
    assert batch.place(2 * SIZE)[-1] == 0, "given back"


@pytest.mark.parametrize(
    ("limit", "most", "reason"),
    [
        (resource.RLIMIT_NOFILE, 3, r"Too many open files.*may open 3 files \('ulimit -n'\)"),
        (resource.RLIMIT_FSIZE, SIZE - 1, r"File too large.*20,971,519 bytes \('ulimit -f'"),
    ],
)
def test_the_error_names_the_limit_that_forbids_memory(limit, most, reason):
    usual = resource.getrlimit(limit)
    resource.setrlimit(limit, (most, usual[1]))
    try:
        with pytest.raises(DarkroomError, match=reason):
            SharedBatch.create()
    finally:
        resource.setrlimit(limit, usual)
    SharedBatch.create()
