"""Which storage errors are tried again, and when."""

import errno
import os
import random

import pytest

from darkroom.tasks.errors import ErrorCode, ImageError
from darkroom.tasks.storage import local as storage
from darkroom.tasks.worker import retries
from darkroom.tasks.worker.retries import FIRST_BACKOFF_SECONDS, TRIES
from tests.tasks.helpers import write_image
from tests.tasks.shards import work


def test_only_transient_errors_are_retried(delays):
    calls = []

    def fail():
        calls.append(1)
        raise ImageError(ErrorCode.SOURCE_DENIED, "no")

    with pytest.raises(ImageError):
        retries.with_retries(fail)
    assert (len(calls), delays) == (1, [])


def growing(path, times):
    """Reading as it is while something appends to the file: for so many reads, and then no more."""
    read_to_end, left = storage._read_to_end, iter(range(times))

    def read_while_it_grows(descriptor, view):
        size = read_to_end(descriptor, view)
        if next(left, None) is not None:
            with path.open("ab") as file:
                file.write(b"\0")
        return size

    return read_while_it_grows


@pytest.mark.parametrize("times", [1, TRIES - 1])
def test_a_file_that_is_being_written_is_read_again_with_backoff(source, place, monkeypatch, delays, times):
    write_image(source / "a.jpg")
    monkeypatch.setattr(storage, "_read_to_end", growing(source / "a.jpg", times))
    monkeypatch.setattr(random, "uniform", lambda *bounds: bounds[1])
    rows, _ = work(source, place)
    assert (rows["a.jpg"]["status"], rows["a.jpg"]["attempts"]) == ("ok", 1)
    assert rows["a.jpg"]["source_size"] == (source / "a.jpg").stat().st_size
    assert delays == [FIRST_BACKOFF_SECONDS * 2**tried for tried in range(times)]


def test_delays_are_jittered(source, place, monkeypatch, delays):
    for number in range(8):
        write_image(source / f"{number}.jpg")
    read_to_end = storage._read_to_end
    seen = set()

    def fail_once(descriptor, view):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if path not in seen:
            seen.add(path)
            raise OSError(errno.EIO, "made up: there is no failing disk here")
        return read_to_end(descriptor, view)

    monkeypatch.setattr(storage, "_read_to_end", fail_once)
    rows, _ = work(source, place)
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert len(set(delays)) == 8
    assert all(0 < delay <= 2 * FIRST_BACKOFF_SECONDS for delay in delays)


def test_a_file_that_keeps_changing_fails_after_all_tries(source, place, monkeypatch, delays):
    write_image(source / "a.jpg")
    monkeypatch.setattr(storage, "_read_to_end", growing(source / "a.jpg", 100))
    rows, _ = work(source, place)
    assert (rows["a.jpg"]["error_code"], rows["a.jpg"]["attempts"]) == ("source.changed", 1)
    assert len(delays) == TRIES - 1


def test_a_write_is_retried(source, place, monkeypatch, delays):
    # Only a failing disk would do this; here its error is made up.
    write_image(source / "a.jpg")
    failures = iter([OSError(errno.EIO, ""), OSError(errno.EIO, "")])
    replace_file = storage.replace_file

    def fail_twice(*arguments):
        for failure in failures:
            raise failure
        replace_file(*arguments)

    monkeypatch.setattr(storage, "replace_file", fail_twice)
    rows, _ = work(source, place)
    assert rows["a.jpg"]["status"] == "ok"
    assert len(delays) == 2
