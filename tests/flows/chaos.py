"""Kill what a run consists of, at random moments, and look at what the next run makes of it: `make chaos`.

Each trial starts `darkroom run` on a fresh destination, kills one victim with SIGKILL after a random part of the time
that an undisturbed run takes, waits for what is left to end, runs once more, and compares destination and manifest
with those of the undisturbed run: all but timings, run ids and hosts has to be the same, to the byte. What the journal
had when the victim died must not have been made again: the work that is repeated is that of the time between two of its
parts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1]))  # as pytest does

from harness import CHECKOUT, DARKROOM, clean_environment, darkroom, eventually, journalled, lasting

from data.photos import write_corpus
from flows.server import LocalServer
from tasks.journal import FLUSH_SECONDS

WORKERS = 2
OPTIONS = ("--width", "300", "--height", "300")
END_SECONDS = 240.0
"""After so long a run that lost something has to have ended, one way or the other."""

VICTIMS = ("worker", "workers", "flow", "group", "server", "scheduler")


@dataclass(frozen=True)
class State:
    """A destination, but for what differs between any two runs."""

    outputs: dict[str, str]
    """Hash of every file that people see, runs/ aside, by name."""

    rows: dict[str, dict[str, Any]]
    paths: list[str]
    """Of the rows, in the manifest's order."""

    working: frozenset[str]
    """Files of the working state."""

    @classmethod
    def of(cls, destination: Path) -> State:
        files = [path for path in destination.rglob("*") if path.is_file()]
        names = {str(path.relative_to(destination)): path for path in files}
        table = pq.read_table(destination / "manifest.parquet")
        rows = [lasting(row) for row in table.to_pylist()]
        return cls(
            {
                name: hashlib.sha256(path.read_bytes()).hexdigest()
                for name, path in names.items()
                if name.startswith("images/")
            },
            {row["source_path"]: row for row in rows},
            [row["source_path"] for row in rows],
            frozenset(name for name in names if not name.startswith(("images/", "runs/"))),
        )


def difference(found: State, expected: State) -> str:
    """Say what of a destination isn't as it should be; nothing if all is."""
    problems = []
    for what in ("outputs", "rows"):
        one, other = getattr(found, what), getattr(expected, what)
        wrong = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
        if wrong:
            problems.append(f"{len(wrong)} {what} differ, such as {wrong[0]}")
    if found.paths != expected.paths:
        problems.append("rows are in another order, or doubled")
    if found.working != expected.working:
        problems.append(f"left over or missing: {sorted(found.working ^ expected.working)}")
    return "; ".join(problems)


@dataclass(frozen=True)
class Disturbed:
    """How a disturbed run ended, and what it had by when it was disturbed."""

    code: int | None
    seconds: float
    """From the kill to its end."""

    outputs: dict[str, int]
    """Inodes of the outputs that were there, by name; an output that is made again gets another."""

    journalled: frozenset[str]
    """Those of them that the journal had."""


@dataclass(frozen=True)
class Outcome:
    """What came of one trial."""

    victim: str
    after: float
    """Seconds from the start of the run to the kill."""

    code: int | None
    """How the disturbed run ended."""

    seconds: float
    """From the kill to the end of the disturbed run."""

    repeated: int
    """Images whose output was there when the victim died, and was made again."""

    problem: str
    """What was wrong in the end; nothing if all was right."""


def children(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def is_command(process: psutil.Process, word: str) -> bool:
    try:
        return any(word in argument for argument in process.cmdline())
    except psutil.Error:
        return False


def dask_workers(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The Dask workers of a run: what its fork server has forked."""
    return [
        child
        for parent in children(process)
        if is_command(parent, "multiprocessing.forkserver")
        for child in _children_of(parent)
    ]


def _children_of(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children()
    except psutil.NoSuchProcess:
        return []


def kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue


@contextmanager
def dask_cluster(folder: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A Dask scheduler and its workers, as somebody else would run them, with Dask's default settings."""
    file = folder / "scheduler.json"
    file.unlink(missing_ok=True)
    common = ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(file)]
    commands = [["dask_scheduler", "--port", "0"], *[["dask_worker", "--nthreads", "1"]] * WORKERS]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.{command[0]}", *command[1:], *common],
            env=clean_environment(folder),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for command in commands
    ]
    try:
        eventually(lambda: file.exists() and file.read_text().rstrip().endswith("}"))
        yield json.loads(file.read_text())["address"], processes
    finally:
        for process in processes:
            kill([*children(process), *_alive(process)])
            process.wait()


def _alive(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return [psutil.Process(process.pid)] if process.poll() is None else []


@dataclass
class Chaos:
    """Trials on one source."""

    folder: Path
    source: Path
    api_url: str
    random: random.Random
    expected: State
    seconds: float
    """What an undisturbed run takes."""

    trials: int = 0

    @property
    def environment(self) -> dict[str, str]:
        return clean_environment(self.folder) | {"PREFECT_API_URL": self.api_url}

    def trial(self, victim: str) -> Outcome:
        """Disturb one run, run again, and compare."""
        self.trials += 1
        destination = self.folder / f"trial-{self.trials}"
        after = self.random.uniform(0.1, 1.0) * self.seconds
        if victim == "scheduler":
            with dask_cluster(self.folder) as (address, processes):
                scheduler = processes[0]
                place = ("--scheduler", address)
                run = self._disturb(destination, after, lambda _: kill(_alive(scheduler)), self.environment, place)
        else:
            environment = self.environment
            if victim == "server":
                environment = clean_environment(self.folder)  # the run starts its own
            place = ("--workers", f"{WORKERS}")
            run = self._disturb(destination, after, lambda run: kill(self._victims(run, victim)), environment, place)
        problem = self._rerun(destination)
        repeated = {name for name, inode in run.outputs.items() if (destination / name).stat().st_ino != inode}
        if not problem and repeated & run.journalled:
            problem = f"{len(repeated & run.journalled)} images that the journal had were made again"
        return Outcome(victim, after, run.code, run.seconds, len(repeated), problem)

    def _victims(self, run: subprocess.Popen[bytes], victim: str) -> list[psutil.Process]:
        if victim in ("worker", "workers"):
            workers = dask_workers(run)
            return self.random.sample(workers, min(1, len(workers))) if victim == "worker" else workers
        if victim == "server":
            return [child for child in children(run) if is_command(child, "flows.server")]
        return [*(children(run) if victim == "group" else []), *_alive(run)]

    def _disturb(
        self,
        destination: Path,
        after: float,
        strike: Callable[[subprocess.Popen[bytes]], None],
        environment: dict[str, str],
        place: tuple[str, ...],
    ) -> Disturbed:
        """Run, and strike."""
        command = [*DARKROOM, "run", self.source, destination, *OPTIONS, *place]
        with tempfile.TemporaryFile() as said:
            run = subprocess.Popen(
                list(map(str, command)),
                env=environment,
                stdout=said,
                stderr=said,
                start_new_session=True,
                cwd=self.folder,
            )
            try:
                time.sleep(after)
                family = children(run)
                noted = _outputs_journalled(destination)
                strike(run)
                there = {str(path.relative_to(destination)): path.stat().st_ino for path in _outputs(destination)}
                struck = time.monotonic()
                code = run.wait(END_SECONDS)
                # What the dead can't end ends by itself.
                psutil.wait_procs(family, timeout=END_SECONDS)
            except subprocess.TimeoutExpired:
                kill([*children(run), *_alive(run)])
                code = None
        return Disturbed(code, time.monotonic() - struck, there, noted)

    def _rerun(self, destination: Path) -> str:
        """Run once more and say what is wrong after that."""
        command = ("run", self.source, destination, *OPTIONS, "--workers", str(WORKERS))
        ended = darkroom(*command, environment=self.environment, seconds=END_SECONDS)
        if ended.code != 0:
            return f"the rerun ended with {ended.code}: {ended.err.strip()[-300:]}"
        return difference(State.of(destination), self.expected)


def _outputs_journalled(destination: Path) -> frozenset[str]:
    names: set[str] = set()
    for part in journalled(destination):
        with suppress(FileNotFoundError):  # the run has just published it
            names.update(name for name in pq.read_table(part)["file_name"].to_pylist() if name)
    return frozenset(names)


def _outputs(destination: Path) -> list[Path]:
    images = destination / "images"
    return [path for path in images.rglob("*.jpg") if path.is_file()]


@contextmanager
def chaos(folder: Path, images: int, seed: int, api_url: str) -> Iterator[Chaos]:
    """Prepare trials: a source of so many images, and what an undisturbed run makes of it."""
    source, calm = folder / "photos", folder / "calm"
    write_corpus(source, images, (500, 375))
    for number in range(0, images, 97):
        (source / f"broken {number}.jpg").write_bytes(b"no image")
    environment = clean_environment(folder) | {"PREFECT_API_URL": api_url}
    started = time.monotonic()
    ended = darkroom("run", source, calm, *OPTIONS, "--workers", str(WORKERS), environment=environment, seconds=600)
    if ended.code != 0:
        raise SystemExit(f"the undisturbed run failed: {ended.err}")
    yield Chaos(folder, source, api_url, random.Random(seed), State.of(calm), time.monotonic() - started)


def main() -> None:
    """Run trials of every victim, and print what came of them."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--images", type=int, default=3_000, help="images of the source (default: 3,000)")
    parser.add_argument("--trials", type=int, default=20, help="trials of each victim (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="decides the moments (default: 0)")
    parser.add_argument("--victims", nargs="+", choices=VICTIMS, default=VICTIMS, help="what is killed (default: all)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-", dir=CHECKOUT / "data") as name:
        folder = Path(name)
        os.environ.update(clean_environment(folder))
        server = LocalServer()
        server.wait_until_healthy()
        try:
            with chaos(folder, options.images, options.seed, server.api_url) as trials:
                wrong = _print_trials(trials, options.victims, options.trials)
        finally:
            server.stop()
    raise SystemExit(1 if wrong else 0)


def _print_trials(trials: Chaos, victims: list[str], count: int) -> int:
    print(
        f"{len(trials.expected.rows):,} images, {trials.seconds:.1f} s undisturbed; "
        f"a part of the journal every {FLUSH_SECONDS:g} s"
    )
    print(f"{'killed':10} {'after':>7} {'exit':>5} {'ended in':>9} {'repeated':>9}  after the rerun", flush=True)
    wrong = 0
    for _ in range(count):
        for victim in victims:
            outcome = trials.trial(victim)
            wrong += bool(outcome.problem)
            print(
                f"{outcome.victim:10} {outcome.after:6.1f}s {outcome.code if outcome.code is not None else '–':>5} "
                f"{outcome.seconds:8.1f}s {outcome.repeated:9,}  {outcome.problem or 'as undisturbed'}",
                flush=True,
            )
    print(f"{count * len(victims)} trials, {wrong} of them wrong")
    return wrong


if __name__ == "__main__":
    main()
