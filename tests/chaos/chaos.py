"""Trials that kill processes of a run at a random moment, run again, and compare with an undisturbed run.

A trial starts `darkroom run` on a fresh destination, kills one victim with SIGKILL, mostly while shards run, waits
until the rest has ended, runs once more, and compares destination and manifest with those of an undisturbed run:
everything but timings, run ids and hosts must be the same, to the byte. Outputs that were in the journal at the kill
must not be made again, nor outputs older than `REPEATED_SECONDS`. Nothing may be left over: no process, file or folder,
and no run in Prefect that has not ended.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from darkroom.tasks.dataset.journal import FLUSH_SECONDS
from data.photos import photo, write_corpus
from tests.chaos.destination_state import State, difference
from tests.chaos.moments import END_SECONDS, Moment, Pace
from tests.chaos.places import Folder, Place, Prefix, Written
from tests.chaos.victims import OWN_SERVER, SURVIVED, dask_cluster, kill_victim, names, started
from tests.harness import DARKROOM, Api, clean_environment
from tests.s3_server import S3Server

WORKERS = 2
OPTIONS = ("--width", "300", "--height", "300", "--max-failure-ratio", "1")
"""No limit on failures: most images that are left for the rerun may be broken ones."""

REPEATED_SECONDS = 3 * FLUSH_SECONDS
"""The rerun may make outputs again that were at most this old at the kill. Of this, `FLUSH_SECONDS` pass until the next
part of the journal is due, as much may pass for images in flight (an image is journalled with its batch, a second or
two later, after the next batch was submitted), and as much for writing the part, which first syncs all its outputs."""

DRAWS = 5
"""How many moments to try until there is a process to kill."""

LEAVE_SECONDS = 10.0
"""How long child processes of an undisturbed run may take to end after it."""

EVENTS_SECONDS = 30.0
"""How long the server may take to process events about task runs."""

ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}

SLOW_AFTER = 5
SLOW_KINDS = 4


@dataclass(frozen=True)
class Disturbed:
    """A run that lost processes to a kill, and what it had finished by then."""

    destination: Place
    moment: Moment
    after: float
    """Seconds from the run's start to the kill."""

    killed: int
    """Number of processes that were killed; 0 if there was none, or the run had ended."""

    at: float
    """The time of the kill, in seconds since the epoch."""

    code: int | None
    """The run's exit code; None if it did not end."""

    seconds: float
    """Seconds from the kill to the run's end."""

    outputs: dict[str, Written]
    """The outputs that existed at the kill."""

    journalled: frozenset[str]
    """Names of the outputs that were in the journal."""

    alive: str
    """Command lines of the run's processes that did not end."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of one trial."""

    victim: str
    run: Disturbed
    repeated: int = 0
    """Number of outputs that existed at the kill and were made again."""

    oldest: float = 0.0
    """Age in seconds, at the kill, of the oldest of these outputs."""

    problems: list[str] = field(default_factory=list)


@dataclass
class Chaos:
    """Trials on one source."""

    folder: Path
    place: Place
    """The folder or prefix that holds source and destinations."""

    api: Api
    random: random.Random
    expected: State
    pace: Pace

    trials: int = 0

    def trial(self, victim: str, moment: Moment | None = None) -> Outcome:
        """Kill a victim of a run, at `moment` or a random one, run again, and compare."""
        for _ in range(DRAWS):
            self.trials += 1
            destination = self.place / f"trial-{self.trials}"
            run = self._disturbed(victim, destination, moment or Moment.drawn(self.random, self.pace))
            if run.killed:
                return self._outcome(victim, run)
        return Outcome(victim, run, problems=["there was nothing to kill"])

    def _outcome(self, victim: str, run: Disturbed) -> Outcome:
        """Run again, compare, and return the outcome of the trial."""
        problems = []
        if run.code is None:
            problems.append(f"the run did not end within {END_SECONDS:g} s")
        elif victim in SURVIVED and run.code:
            problems.append(f"the run ended with {run.code}, though the killed processes can be replaced")
        if run.alive:
            problems.append(f"the run left {run.alive}")
        unfinished = run.destination.unfinished()
        with started(self._command(run.destination), self._environment(victim)) as again:
            if code := again.ended(END_SECONDS):
                problems.append(f"the rerun ended with {code}: {again.output_tail()}")
            elif code is None:
                problems.append(f"the rerun did not end within {END_SECONDS:g} s")
            elif left := names(again.survivors(LEAVE_SECONDS)):
                problems.append(f"the rerun left {left}")
            if code != 0:
                return Outcome(victim, run, problems=problems)
        problems += difference(State.of(run.destination.local()), self.expected)
        outputs = run.destination.outputs()
        repeated = {name for name, written in run.outputs.items() if outputs.get(name) != written}
        oldest = max((run.outputs[name].age(run.at) for name in repeated), default=0.0)
        if known := len(repeated & run.journalled):
            problems.append(f"{known} journalled outputs were made again")
        if oldest > REPEATED_SECONDS:
            problems.append(f"an output that was {oldest:.1f} s old was made again")
        if victim not in OWN_SERVER:
            problems += self._not_ended(run, unfinished)
        return Outcome(victim, run, len(repeated), oldest, problems)

    def _not_ended(self, run: Disturbed, unfinished: frozenset[str]) -> list[str]:
        """Return the flow runs on a destination, and their task runs, that have not ended in Prefect.

        A flow run that was killed before it had a workspace is left out: no later run can know that it died.
        """
        by_name = {"flow_runs": {"name": {"like_": f"{run.destination.name} "}}, "sort": "START_TIME_DESC"}
        found = self.api.post("flow_runs/filter", by_name)
        flows = [flow["id"] for flow in found if flow["parameters"]["destination"] == str(run.destination)]
        if run.code is None or run.code < 0:
            flows = [flow for flow in flows if flow == flows[0] or flow in unfinished]
        deadline = time.monotonic() + EVENTS_SECONDS
        while (wrong := self._still_running(flows)) and time.monotonic() < deadline:
            time.sleep(0.2)
        return [f"not ended in Prefect: {', '.join(wrong)}"] if wrong else []

    def _still_running(self, flows: list[str]) -> list[str]:
        runs = [("flow run", self.api.flow_run(flow)) for flow in flows]
        runs += [("task run", task) for flow in flows for task in self.api.task_runs(flow)]
        return [f"{kind} {each['name']} {each['state_type']}" for kind, each in runs if each["state_type"] not in ENDED]

    def _environment(self, victim: str) -> dict[str, str]:
        """Return the environment of a run, with or without a Prefect server."""
        if victim in OWN_SERVER:
            return clean_environment(self.folder / "own")
        return self.api.environment

    def _command(self, destination: Place, *place: str) -> tuple[str | Path, ...]:
        return run_command(self.place / "photos", destination, *(place or ("--workers", str(WORKERS))))

    def _disturbed(self, victim: str, destination: Place, moment: Moment) -> Disturbed:
        """Start a run, kill the victim at a moment, and wait for the run's end."""
        place: tuple[str, ...] = ()
        scheduler = None
        with ExitStack() as stack:
            if victim == "scheduler":
                address, scheduler = stack.enter_context(dask_cluster(self.folder, WORKERS))
                place = ("--scheduler", address)
            began = time.monotonic()
            run = stack.enter_context(started(self._command(destination, *place), self._environment(victim)))
            moment.wait(run.process, destination, len(self.expected.outputs))
            after = time.monotonic() - began
            journalled = destination.journalled()
            at = time.time()
            killed = kill_victim(victim, run, scheduler, self.random)
            outputs = destination.outputs()
            code = run.ended(END_SECONDS)
            seconds = time.time() - at
            # Processes whose parent was killed must end by themselves.
            alive = names(run.survivors(END_SECONDS if code is not None else 0))
            return Disturbed(destination, moment, after, killed, at, code, seconds, outputs, journalled, alive)


@contextmanager
def chaos(folder: Path, images: int, slow: int, seed: int, api: Api, server: S3Server | None = None) -> Iterator[Chaos]:
    """Prepare trials: write a source of `images` images, of which `slow` are slow to decode, and run undisturbed.

    With a server, which the environment must point to, source and destinations are in one of its buckets.
    """
    place = Prefix(server, server.make_bucket(), "trials", folder) if server else Folder(folder)
    source, undisturbed = place / "photos", place / "undisturbed"
    write_source(folder / "written", images, slow)
    source.fill(folder / "written")
    (folder / "own").mkdir()
    with started(run_command(source, undisturbed, "--workers", str(WORKERS)), api.environment) as run:
        pace = Pace.measured(run.process, undisturbed)
        if run.process.returncode:
            raise SystemExit(f"the undisturbed run ended with {run.process.returncode}: {run.output_tail()}")
    yield Chaos(folder, place, api, random.Random(seed), State.of(undisturbed.local()), pace)


def run_command(source: Place, destination: Place, *place: str) -> tuple[str | Path, ...]:
    """Return the command line of a run."""
    return (*DARKROOM, "run", str(source), str(destination), *OPTIONS, *place)


def write_source(source: Path, images: int, slow: int) -> None:
    """Write photos, a few broken images, and hard links to a few small files that are slow to decode.

    Shards are cut by bytes, so a shard with slow images takes long enough for several parts of the journal.
    """
    photos = write_corpus(source, images - slow, (200, 150))
    for number in range(0, images, 97):
        (source / f"broken {number}.jpg").write_bytes(b"no image")
    kinds = [source / f"slow {seed}.webp" for seed in range(min(SLOW_KINDS, slow))]
    for seed, kind in enumerate(kinds):
        blocks = Image.fromarray(photo(16, 12, seed)).resize((4000, 3000), Image.Resampling.NEAREST)
        blocks.save(kind, lossless=True, method=0)
    for number in range(len(kinds), slow):
        before = photos[min(number * SLOW_AFTER, len(photos) - 1)]
        os.link(kinds[number % SLOW_KINDS], before.with_name(f"{before.stem} slow {number}.webp"))
