"""A process that calls `end_with_parent` ends with its parent."""

import subprocess
import sys

import psutil

CODE = """
import os, signal, time
from darkroom.tasks.worker.orphan import end_with_parent
if not os.fork():
    end_with_parent(signal.SIGKILL)
    print(os.getpid(), flush=True)
time.sleep(60)
"""


def test_a_child_is_killed_when_its_parent_is():
    with subprocess.Popen([sys.executable, "-c", CODE], stdout=subprocess.PIPE) as parent:
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    psutil.wait_procs([child], 30)
    assert not child.is_running()
