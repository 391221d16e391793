"""A process that asked to end with its parent does."""

import signal
import subprocess
import sys

import psutil

CHILD = """
import signal, sys, time
from darkroom.tasks.worker.orphan import end_with_parent
end_with_parent(signal.SIGKILL)
print("ready", flush=True)
time.sleep(60)
"""
PARENT = """
import subprocess, sys, time
print(subprocess.Popen([sys.executable, "-c", {!r}]).pid, flush=True)
time.sleep(60)
"""


def test_a_child_is_killed_when_its_parent_is():
    command = [sys.executable, "-c", PARENT.format(CHILD)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        lines = {parent.stdout.readline().strip(), parent.stdout.readline().strip()}
        [pid] = lines - {"ready"}
        child = psutil.Process(int(pid))
        parent.send_signal(signal.SIGKILL)
    psutil.wait_procs([child], 30)
    assert not child.is_running()
