import io
import os
import random

from darkroom.tasks.storage.ranged_file import FIRST_BYTES, RangedFile


def ranged(data):
    """Return a file that reads ranges of an object, and the list of these ranges."""
    read = []

    def range_of(first, last):
        read.append((first, last))
        return data[first:last]

    return io.BufferedReader(RangedFile(range_of, len(data), data[:FIRST_BYTES])), read


def test_a_ranged_file_reads_like_a_local_one():
    data = os.urandom(3 * FIRST_BYTES + 17)
    file, _ = ranged(data)
    same, choice = io.BytesIO(data), random.Random(1)
    assert file.read() == data
    for _ in range(300):
        at, size = choice.randrange(len(data) + 10), choice.choice([0, 1, 100, 70_000, 2 * FIRST_BYTES])
        assert file.seek(at) == same.seek(at)
        assert file.read(size) == same.read(size)
    assert file.seek(-5, os.SEEK_END) == len(data) - 5
    assert file.read() == data[-5:]


def test_bytes_already_read_are_not_requested_again():
    file, read = ranged(os.urandom(FIRST_BYTES))
    file.read()
    file.seek(-100, os.SEEK_END)
    file.read()
    assert read == []


def test_sequential_reads_request_growing_blocks():
    data = bytes(20 * FIRST_BYTES)
    file, read = ranged(data)
    while file.read(1000):
        pass
    assert [last - first for first, last in read] == [FIRST_BYTES * size for size in (2, 4, 8, 5)]
