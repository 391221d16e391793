"""A Prefect worker that stops its flow runs gracefully, and marks the task runs of killed ones as Crashed.

A stopped `prefect worker start` kills its flow runs: their leases stay, and the UI shows them as Running until the
server misses their heartbeats. And for a killed flow run, it marks only the flow run as Crashed, not its task runs.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import suppress

import httpx
import psutil

from darkroom.deployments.deploy import POOL, check_server
from darkroom.flows.cli import terminal
from darkroom.flows.runtime.crashed import mark_left_task_runs
from darkroom.flows.runtime.signals import ENDING, sigterm_exits
from darkroom.tasks.wording import counted

RUN_SECONDS = 60.0
"""Time for a flow run to write its journals and release its lease."""

WORKER_SECONDS = 15.0

SWEEP_SECONDS = 5.0
"""Interval of the search for task runs of killed flow runs."""


def main() -> None:
    """Run a worker of the pool until SIGINT or SIGTERM; arguments go to `prefect worker start`."""
    # A shell that starts a command in the background makes it ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with terminal.exit_on_error():
            check_server()
        _run_worker()
    except KeyboardInterrupt:
        sys.exit(0)


def _run_worker() -> None:
    with sigterm_exits():
        worker = subprocess.Popen(  # noqa: S603 - Prefect, run by this interpreter
            [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, *sys.argv[1:]],
            # So that Ctrl-C on the terminal reaches only this process.
            start_new_session=True,
        )
        try:
            sys.exit(_wait(worker))
        finally:
            _stop(worker)


def _wait(worker: subprocess.Popen[bytes]) -> int:
    """Wait for a worker to end, and mark the task runs of killed flow runs meanwhile; return its exit code."""
    while True:
        with suppress(subprocess.TimeoutExpired):
            return worker.wait(SWEEP_SECONDS)
        # Prefect's worker reports a server that can't be reached.
        with suppress(httpx.HTTPError):
            for name in mark_left_task_runs(POOL):
                print(f"Flow run {name} was killed: its task runs are marked as Crashed.", flush=True)


def _stop(worker: subprocess.Popen[bytes]) -> None:
    """Stop a worker's flow runs, then the worker, and wait for all of them to end; ignore further signals."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    # The worker may start another run meanwhile.
    while runs := _flow_runs(worker.pid):
        print(f"Stopping {counted(len(runs), 'flow run')}; what is finished is kept.", flush=True)
        _send(runs, signal.SIGTERM)
        _, alive = psutil.wait_procs(runs, timeout=RUN_SECONDS)
        _send(alive, signal.SIGKILL)
    worker.terminate()
    try:
        worker.wait(WORKER_SECONDS)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()


def _send(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _flow_runs(worker: int) -> list[psutil.Process]:
    """Return the running processes of a worker's flow runs."""
    runs = []
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(worker).children():
            with suppress(psutil.Error):
                if child.status() != psutil.STATUS_ZOMBIE and "prefect.engine" in child.cmdline():
                    runs.append(child)
    return runs


if __name__ == "__main__":
    main()
