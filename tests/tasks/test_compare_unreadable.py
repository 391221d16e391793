"""An output that can't be read is unreadable, never damaged."""

import errno

import pytest

from darkroom.tasks.errors import ErrorCode, ImageError
from darkroom.tasks.storage import local as storage
from darkroom.tasks.storage.retries import TRIES
from darkroom.tasks.worker import codec
from tests.places import destination_at
from tests.tasks.helpers import unprivileged, write_image
from tests.tasks.verifying import make, verify


def failing_reads(monkeypatch, error, times):
    """Make the first reads fail; `times` is their number."""
    read_to_end, left = storage._read_to_end, iter(range(times))

    def read(descriptor, view):
        if next(left, None) is not None:
            raise error
        return read_to_end(descriptor, view)

    monkeypatch.setattr(storage, "_read_to_end", read)


def test_a_transient_read_error_is_no_finding(nine, monkeypatch, delays):
    failing_reads(monkeypatch, OSError(errno.EIO, "x"), TRIES - 1)
    assert verify(nine)[1] == {}
    assert delays


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (OSError(errno.EIO, "x"), "reading failed: Input/output error"),
        (OSError(errno.ETIMEDOUT, "x"), "reading failed: Connection timed out"),
        (MemoryError(), "there was not enough memory"),
        (RuntimeError("x"), "unexpected RuntimeError"),
    ],
)
@pytest.mark.usefixtures("delays")
def test_unreadable_outputs_are_not_damaged(nine, monkeypatch, error, detail):
    failing_reads(monkeypatch, error, 9 * TRIES)
    report, found = verify(nine)
    assert found == {f"{number}.jpg": ("unreadable", detail) for number in range(9)}
    assert "may be intact" in report.failure()
    assert "run" not in report.failure()


@pytest.mark.parametrize("code", [ErrorCode.DECODE_MEMORY, ErrorCode.DECODE_TIMEOUT])
def test_outputs_whose_decoding_lacks_memory_or_time_are_unreadable_not_damaged(nine, monkeypatch, code):
    monkeypatch.setattr(codec, "read_answer", lambda *_: ImageError(code, "x"))
    assert verify(nine)[1] == {f"{number}.jpg": ("unreadable", "x") for number in range(9)}


def test_files_and_folders_without_read_permission_are_unreadable_not_damaged_or_missing(open_path):
    source, place = open_path / "source", destination_at(open_path / "dest")
    for name in ("a.jpg", "b.jpg", "closed/c.jpg", "closed/deep/d.jpg", "half/e.jpg", "closed-not/f.jpg"):
        write_image(source / name)
    make(source, place)
    (place.images / "closed-not/f.jpg").unlink()
    (place.images / "a.jpg").chmod(0)
    (place.images / "closed").chmod(0)
    (place.images / "half").chmod(0o444)
    for folder in (place.root, place.work):
        folder.chmod(0o777)
    with unprivileged():
        _, found = verify(place)
    assert found == {
        "a.jpg": ("unreadable", "reading failed: Permission denied"),
        "closed": ("unreadable", "the folder could not be listed"),
        "closed/c.jpg": ("unreadable", "its folder could not be listed"),
        "closed/deep/d.jpg": ("unreadable", "its folder could not be listed"),
        "half": ("unreadable", "the folder could not be listed"),
        "half/e.jpg": ("unreadable", "its folder could not be listed"),
        "closed-not/f.jpg": ("missing", "there is no such file"),
    }
