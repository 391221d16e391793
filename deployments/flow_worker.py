"""A Prefect worker that ends its flow runs in order when it is told to stop.

`prefect worker start` kills them instead: their leases stay behind, and they are Running in the UI until the
server misses their heartbeats.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import suppress

import psutil

from darkroom.flows.runtime.signals import ENDING, sigterm_exits

POOL = "darkroom"
RUN_SECONDS = 60.0
"""A flow run that is told to end has so long to close its journals and give its destination free."""

WORKER_SECONDS = 15.0


def main() -> None:
    """Run a worker of the pool until SIGINT or SIGTERM; arguments go to `prefect worker start`."""
    # A shell that starts a command in the background has it ignore SIGINT, by which the worker ends itself.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with sigterm_exits():
        worker = subprocess.Popen(  # noqa: S603 - Prefect, by this interpreter
            [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, *sys.argv[1:]],
            # Ctrl-C on the terminal is for this process.
            start_new_session=True,
        )
        try:
            sys.exit(worker.wait())
        except KeyboardInterrupt:
            sys.exit(0)
        finally:
            _end(worker)


def _end(worker: subprocess.Popen[bytes]) -> None:
    """End a worker's flow runs, and then the worker; none of it is left when this returns."""
    # Who asks a second time is answered already.
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    while runs := _flow_runs(worker.pid):
        print(f"Telling {len(runs)} flow run(s) to end; what is finished is kept.", flush=True)
        for run in runs:
            with suppress(psutil.NoSuchProcess):
                run.terminate()
        _, alive = psutil.wait_procs(runs, timeout=RUN_SECONDS)
        for run in alive:
            with suppress(psutil.NoSuchProcess):
                run.kill()
    worker.terminate()
    try:
        worker.wait(WORKER_SECONDS)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()


def _flow_runs(worker: int) -> list[psutil.Process]:
    """Return the processes of the flow runs that a worker has started."""
    try:
        return [child for child in psutil.Process(worker).children() if _is_run(child)]
    except psutil.NoSuchProcess:
        return []


def _is_run(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and "prefect.engine" in process.cmdline()
    except psutil.Error:
        return False


if __name__ == "__main__":
    main()
