"""Run a command, and measure its wall time, CPU time and memory, those of all its descendants included.

The command runs below a measuring process (this module, as a script). Linux counts a descendant's CPU time
for its parent when the parent waits for it. Dask workers are children of a fork server that no process
waits for: when it ends, they and it become orphans, and their CPU time would be lost. The measuring process
therefore makes itself the reaper of all orphans below it, waits for each, and then finds the whole tree in
`RUSAGE_CHILDREN`. On other systems than Linux, orphans are missing.

Memory is sampled, which costs time: timed rounds do without it.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from darkroom.flows.runtime.signals import sigterm_exits

ROOT = Path(__file__).resolve().parent.parent
"""The checkout: where `python -m benchmarks…` finds its modules."""

SAMPLE_SECONDS = 0.1
ORPHAN_SECONDS = 20.0
"""A descendant that still runs this long after the command's end was left behind."""

_PR_SET_CHILD_SUBREAPER = 36


class CommandError(Exception):
    """A measured command failed, or left processes behind."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a command took. Seconds, and megabytes of 10⁶ bytes."""

    wall_s: float
    cpu_s: float
    """User and system time of the command and all its descendants."""

    peak_mb: float | None
    """Highest sum, over all its processes, of the memory in use at one moment, pages that several share
    counted once (PSS; on systems without it USS, which leaves them out); None if it was not sampled."""

    left_behind: int
    """Descendants that had to be killed."""

    returncode: int
    output: str = ""


def measure(command: Sequence[str], env: Mapping[str, str], *, memory: bool = False) -> Measurement:
    """Run a command in the checkout's folder, and return what it took and wrote to its standard output.

    Raises:
        CommandError: it ended with another status than 0, or left processes behind; has its output.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result.json")
        options = ["--memory"] if memory else []
        runner = [sys.executable, "-m", "benchmarks.measure", str(result), *options, "--", *command]
        output, errors = _finish(
            subprocess.Popen(
                runner, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
            )
        )
        if not result.exists():
            raise CommandError(f"measuring {' '.join(command)} failed:\n{errors}")
        measured = Measurement(**json.loads(result.read_text()), output=output)
    if measured.returncode or measured.left_behind:
        raise CommandError(
            f"{' '.join(command)}: status {measured.returncode}, {measured.left_behind} processes left behind\n"
            f"{output}\n{errors}"
        )
    return measured


def _finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Return what a process writes to its standard output and error; if interrupted, end it in good order."""
    try:
        return process.communicate()
    except BaseException:
        process.terminate()
        process.wait()
        raise


def _measure_here(command: Sequence[str], *, memory: bool) -> Measurement:
    """Measure a command as the reaper of its orphans."""
    _reap_orphans_of_descendants()
    sampler = _Sampler() if memory else None
    started = time.perf_counter()
    process = subprocess.Popen(command)
    try:
        if sampler:
            sampler.start()
        returncode = process.wait()
        wall = time.perf_counter() - started
    finally:
        if process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(ORPHAN_SECONDS)
        peak_mb = sampler.stop() if sampler else None
        left_behind = _reap()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Measurement(wall, used.ru_utime + used.ru_stime, peak_mb, left_behind, returncode)


def _reap_orphans_of_descendants() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _reap() -> int:
    """Wait for all children, orphans included, kill those that stay, and return their number."""
    deadline = time.monotonic() + ORPHAN_SECONDS
    killed: set[int] = set()
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return len(killed)
        if pid == 0:
            time.sleep(0.005)
            if time.monotonic() > deadline:
                killed |= _kill_descendants()


def _kill_descendants() -> set[int]:
    import psutil

    descendants = psutil.Process().children(recursive=True)
    for process in descendants:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    return {process.pid for process in descendants}


class _Sampler(threading.Thread):
    """Adds up, every `SAMPLE_SECONDS`, the memory of all descendants of this process."""

    def __init__(self) -> None:
        import psutil

        super().__init__(daemon=True)
        self._psutil = psutil
        self._me = psutil.Process()
        self._ended = threading.Event()
        self._peak = 0

    def run(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self._peak = max(self._peak, sum(map(self._memory, self._me.children(recursive=True))))

    def stop(self) -> float:
        """End the sampling and return the peak in megabytes."""
        self._ended.set()
        self.join()
        return self._peak / 1e6

    def _memory(self, process: object) -> int:
        """Return the bytes of memory of a process; 0 if it has ended meanwhile."""
        try:
            info = process.memory_full_info()  # type: ignore[attr-defined]
        except self._psutil.Error:
            return 0
        return int(getattr(info, "pss", info.uss))


def main() -> None:
    """Measure the command named on the command line, and write the measurement as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("result", type=Path)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    with sigterm_exits():
        measured = asdict(_measure_here(options.command, memory=options.memory))
    del measured["output"]
    options.result.write_text(json.dumps(measured))


if __name__ == "__main__":
    main()
