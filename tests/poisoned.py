"""Images that really bring their decoder down, and how to make Python's processes fall for them."""

import os
from pathlib import Path

from tests.tasks.imaging.reference import jpeg, picture

TESTS = Path(__file__).parent


def poison(kind, seed=0):
    """A JPEG that is a good one, but for what `tests/poison` does when it meets its last bytes."""
    return jpeg(picture(40, 30, seed)) + b"poison:" + kind.encode()


def poisoned_environment(log):
    """What to add to the environment of processes that are to fall for poison, and to note what they met."""
    paths = [TESTS / "poison", TESTS.parent, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {"PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHON_POISON_LOG": str(log)}


def met(log):
    """What was met, and by which process, in order."""
    return [tuple(line.rsplit(" ", 1)) for line in log.read_text().splitlines()] if log.exists() else []
