"""Programs that some tests need and that Python's packages don't bring."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


def needs(program: str, package: str, *, folders: str = "") -> str:
    """Return the path of a program; where it is not installed, skip the test, or fail it in CI.

    Args:
        program: its name.
        package: the Debian package that has it; `.ci/run` installs it.
        folders: a pattern of folders below / to look in, beside PATH.
    """
    found = shutil.which(program) or next(map(str, sorted(Path("/").glob(f"{folders}/{program}"))), None)
    if found:
        return found
    message = f"{program} is not installed (apt-get install {package})"
    if os.environ.get("CI"):
        pytest.fail(f"{message}, and CI must not leave out the test")
    pytest.skip(message)
