"""Workers are forked from a process in which forking is safe."""

import subprocess
import sys


def test_the_process_that_forks_workers_has_one_thread_and_no_connection():
    code = (
        "import os, psutil; from darkroom.flows.runtime.cluster import WORKER_ENVIRONMENT, WORKER_MODULE\n"
        "os.environ.update(WORKER_ENVIRONMENT); __import__(WORKER_MODULE)\n"
        "me = psutil.Process(); print(me.num_threads(), len(me.net_connections()))"
    )

    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert printed.split() == ["1", "0"]
