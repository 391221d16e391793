"""A process that ends with the one that started it."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest
from harness import eventually, gone

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

TIED = [sys.executable, "-m", "darkroom.deployments.tied"]
MODULE = ["http.server", "--bind", "127.0.0.1", "0"]


def test_a_tied_process_ends_when_its_parent_is_killed():
    code = f"import os, subprocess; subprocess.run([*{TIED}, str(os.getpid()), *{MODULE}])"
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    with parent:
        children = eventually(psutil.Process(parent.pid).children)
        eventually(lambda: children[0].cmdline()[2:] == MODULE)

        parent.kill()

        eventually(lambda: gone(children), 20)


def test_a_tied_process_does_not_begin_when_its_parent_is_dead():
    # As if it had been adopted by this process.
    done = subprocess.run([*TIED, str(os.getppid()), *MODULE], timeout=60, check=False)

    assert done.returncode == 1
