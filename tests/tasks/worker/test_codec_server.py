"""The codec server ignores signals, imports only codecs, and ends with its worker."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.poisoned import logged, poison
from tests.tasks.worker.codec_runs import GOOD, pid_of_process, transformed


def test_signals_to_all_processes_of_a_run_are_ignored(codec):
    transformed(codec, GOOD)
    process = pid_of_process()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(process, number)
        os.kill(psutil.Process(process).ppid(), number)
    transformed(codec, GOOD)
    assert pid_of_process() == process


def test_workers_load_no_codecs_and_codec_processes_nothing_else():
    code = "import sys, {}; print(*[name for name in {!r} if name in sys.modules])"
    codecs, others = ("cv2", "PIL", "simplejpeg"), ("prefect", "distributed", "dask", "pyarrow", "duckdb")
    workers, server = "darkroom.tasks.resize, darkroom.tasks.compare", "darkroom.tasks.worker.codec_server"
    for imported, banned in ((workers, codecs), (server, others)):
        loaded = subprocess.check_output([sys.executable, "-c", code.format(imported, banned)], text=True)
        assert loaded.strip() == "", imported


@pytest.mark.parametrize("kind", ["spin", "sleep"])
def test_a_busy_codec_process_ends_with_its_worker(kind, log):
    code = (
        "import sys\n"
        "from darkroom.tasks.worker.codec import Codec\n"
        "from darkroom.tasks.worker.orders import Orders\n"
        "orders = Orders(max_pixels=10**9, max_image_seconds=600)\n"
        "list(Codec().run(0, orders, [sys.stdin.buffer.read()]))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as worker:
        worker.stdin.write(poison(kind))
        worker.stdin.close()
        while not logged(log):
            assert worker.poll() is None
            time.sleep(0.01)
        [(_, pid)] = logged(log)
        process = psutil.Process(int(pid))
        server = process.parent()
        worker.kill()
    psutil.wait_procs([process, server], 30)
    assert not process.is_running() and not server.is_running()
