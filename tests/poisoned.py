"""Images on which the decoder of `tests/poison` really crashes or hangs, and the environment that installs it."""

import os
from pathlib import Path

from tests.tasks.imaging.reference import jpeg, picture

TESTS = Path(__file__).parent


def poison(kind, seed=0):
    """Return a valid JPEG whose last bytes make `tests/poison` call its function named `kind`."""
    return jpeg(picture(40, 30, seed)) + b"poison:" + kind.encode()


def poisoned_environment(log):
    """Return environment variables that install `tests/poison` in child processes, and have it write to a log."""
    paths = [TESTS / "poison", TESTS.parent, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {"PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHON_POISON_LOG": str(log)}


def logged(log):
    """Return the entries of that log: the kind of poison, or another event, and the id of the process, as text."""
    return [tuple(line.rsplit(" ", 1)) for line in log.read_text().splitlines()] if log.exists() else []
