import io
import os
import random

from darkroom.tasks.storage.ranged_file import FIRST_BYTES, RangedFile


def ranged(data):
    """A file of an object, and the ranges that it reads."""
    read = []

    def range_of(first, last):
        read.append((first, last))
        return data[first:last]

    return io.BufferedReader(RangedFile(range_of, len(data), data[:FIRST_BYTES])), read


def test_it_reads_as_a_file_does():
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


def test_what_is_there_is_not_asked_for_again():
    file, read = ranged(os.urandom(FIRST_BYTES))
    file.read()
    file.seek(-100, os.SEEK_END)
    file.read()
    assert read == []


def test_what_is_read_on_comes_in_growing_blocks():
    data = bytes(20 * FIRST_BYTES)
    file, read = ranged(data)
    while file.read(1000):
        pass
    assert [last - first for first, last in read] == [FIRST_BYTES * size for size in (2, 4, 8, 5)]
