"""A deadline that holds whatever the interpreter is at."""

import signal
import subprocess
import sys
import time

import pytest

from tasks.lanes import deadline

HANGS = {
    "with the interpreter's lock": "import itertools; sum(itertools.repeat(0))",
    "without it": "import ctypes; ctypes.CDLL(None).pause()",
}
BESIDE = """
for _ in range(200):
    with deadline(60):
        time.sleep(0.01)
"""


def ended(work, beside="pass"):
    """How a process ends that does some work in a thread, with half a second for it, beside what another does."""
    code = f"""
import threading, time
from tasks.lanes import deadline

def hurry():
    with deadline(0.5):
        {work}

threads = [threading.Thread(target=hurry), threading.Thread(target=exec, args=({beside!r}, globals()))]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
time.sleep(1)
"""
    return subprocess.run([sys.executable, "-c", code], check=False).returncode


@pytest.mark.parametrize("hang", HANGS)
def test_a_thread_that_hangs_ends_the_process(hang):
    assert ended(HANGS[hang]) == -signal.SIGALRM


def test_each_thread_has_its_own_deadline():
    assert ended("time.sleep(100)", BESIDE) == -signal.SIGALRM
    assert ended("pass", BESIDE) == 0, "one that is kept is no other's"


def test_a_main_threads_alarm_is_somebody_elses():
    before = signal.getitimer(signal.ITIMER_REAL)
    with deadline(0.01):
        time.sleep(0.05)
    assert (signal.getitimer(signal.ITIMER_REAL)[0] > 0) == (before[0] > 0)
