"""Find programs that some tests need and that no Python package installs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest


def needs(program: str, package: str, *, folders: str = "") -> str:
    """Return the path of a program; where it is not installed, skip the test, or fail it in CI.

    Args:
        program: its name.
        package: the Debian package that contains it; `.ci/run` installs it.
        folders: a pattern of folders below / to search, besides PATH.
    """
    found = shutil.which(program) or next(map(str, sorted(Path("/").glob(f"{folders}/{program}".lstrip("/")))), None)
    return found or skip_or_fail(f"{program} is not installed (apt-get install {package})")


def skip_or_fail(reason: str) -> NoReturn:
    """Skip a test that can't run here, or fail it in CI."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}, and CI must not skip the test")
    pytest.skip(reason)
