"""The processes of a run, and how to kill them."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from uuid import uuid4

import psutil

from tests.harness import clean_environment, eventually

VICTIMS = ("worker", "workers", "stopped", "codec", "flow", "group", "server", "scheduler")

SURVIVED = {"worker", "workers", "stopped", "codec"}
"""Victims that a run replaces, or goes on without."""

OWN_SERVER = {"group", "server"}
"""Trials in which the run starts its own server."""

MARK = "PYTHON_CHAOS_TRIAL"
"""An environment variable that marks all processes of a trial's run. Codec processes inherit variables that begin with
PYTHON, and few others."""


@dataclass(frozen=True)
class Run:
    """A command that has been started."""

    process: subprocess.Popen[bytes]
    mark: str
    output: IO[bytes]

    def itself(self) -> list[psutil.Process]:
        """Return its first process, if that is alive."""
        return [psutil.Process(self.process.pid)] if self.process.poll() is None else []

    def family(self) -> list[psutil.Process]:
        """Return its processes that are alive, including those whose parent has died."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):  # it has just ended, or is another user's
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def workers(self) -> list[psutil.Process]:
        """Return its Dask workers: the processes that its fork server has forked."""
        forked = {each.pid: each for each in self.family() if is_command(each, "multiprocessing.forkserver")}
        found = []
        for process in forked.values():
            with suppress(psutil.NoSuchProcess):
                if process.ppid() in forked:
                    found.append(process)
        return found

    def ended(self, seconds: float) -> int | None:
        """Wait for it to end, and return its exit code; None if it does not end in time."""
        with suppress(subprocess.TimeoutExpired):
            return self.process.wait(seconds)
        return None

    def output_tail(self) -> str:
        """Return the end of its output."""
        self.output.seek(0)
        return self.output.read().decode(errors="replace").strip()[-300:]

    def survivors(self, seconds: float) -> list[psutil.Process]:
        """Return its processes that are still alive after this many seconds."""
        deadline = time.monotonic() + seconds
        while (alive := self.family()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return alive


@contextmanager
def started(command: Sequence[str | Path], environment: dict[str, str]) -> Iterator[Run]:
    """Start a command in a session of its own, and kill its remaining processes when the block ends."""
    mark = str(uuid4())
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            list(map(str, command)),
            env=environment | {MARK: mark},
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd=environment["HOME"],
        )
        run = Run(process, mark, output)
        try:
            yield run
        finally:
            kill([*run.itself(), *run.family()])
            process.wait()


def is_command(process: psutil.Process, word: str) -> bool:
    try:
        return any(word in argument for argument in process.cmdline())
    except psutil.Error:
        return False


def names(processes: list[psutil.Process]) -> str:
    """Return the command lines of processes, joined by commas."""
    output = []
    for process in processes:
        with suppress(psutil.Error):
            output.append(" ".join(process.cmdline())[:80])
    return ", ".join(output)


def kill(processes: list[psutil.Process]) -> int:
    """Kill the processes that are alive, and return their number."""
    killed = 0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            killed += process.status() != psutil.STATUS_ZOMBIE
            process.kill()
    return killed


def stop(processes: list[psutil.Process]) -> int:
    """Suspend processes, as if their machine hung, and return their number."""
    for process in processes:
        process.suspend()
    return len(processes)


def kill_victim(victim: str, run: Run, scheduler: Run | None, chance: random.Random) -> int:
    """Kill or stop a victim, and return the number of its processes; 0 if the run has ended."""
    if not run.itself():
        return 0
    match victim:
        case "worker":
            workers = run.workers()
            victims = chance.sample(workers, min(1, len(workers)))
        case "workers":
            victims = run.workers()
        case "stopped":
            return stop(chance.sample(workers := run.workers(), min(1, len(workers))))
        case "codec":  # a codec process, or the server that forks them
            codecs = [process for process in run.family() if is_command(process, "darkroom.tasks.worker.codec_server")]
            victims = chance.sample(codecs, min(1, len(codecs)))
        case "server":
            victims = [
                process for process in run.family() if is_command(process, "darkroom.flows.runtime.local_server")
            ]
        case "scheduler" if scheduler:
            victims = scheduler.itself()
        case "flow":
            victims = run.itself()
        case _:
            # The flow first: it would replace workers that are killed before it.
            victims = list(dict.fromkeys([*run.itself(), *run.family()]))
    return kill(victims)


@contextmanager
def dask_cluster(folder: Path, workers: int) -> Iterator[tuple[str, Run]]:
    """Run a Dask scheduler and workers with Dask's defaults; provide the scheduler's address and process."""
    file = folder / "scheduler.json"
    file.unlink(missing_ok=True)
    common = ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(file)]
    commands = [["dask_scheduler", "--port", "0"], *[["dask_worker", "--nthreads", "1"]] * workers]
    with ExitStack() as stack:
        scheduler, *_ = [
            stack.enter_context(
                started(
                    [sys.executable, "-m", f"distributed.cli.{program}", *options, *common], clean_environment(folder)
                )
            )
            for program, *options in commands
        ]
        eventually(lambda: file.exists() and file.read_text().rstrip().endswith("}"))
        yield json.loads(file.read_text())["address"], scheduler
