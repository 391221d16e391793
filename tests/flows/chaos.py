"""Kill what a run consists of, at random moments, and look at what the next run makes of it: `make chaos`.

Each trial starts `darkroom run` on a fresh destination, kills one victim with SIGKILL at a random moment, mostly of the
work, waits for what is left to end, runs once more, and compares destination and manifest with those of an undisturbed
run: all but timings, run ids and hosts has to be the same, to the byte. What the journal had when the victim died must
not have been made again, and nothing that had been there for longer than the journal can take: the work that is
repeated is that of the time between two of its parts. Nothing is left behind: no process, no file, no folder, and no
run in Prefect's UI that isn't over.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))  # as pytest does
sys.path.insert(0, str(Path(__file__).parent))

from destination_state import State, Written, difference, outputs_journalled, outputs_of
from harness import CHECKOUT, DARKROOM, Api, clean_environment
from moments import END_SECONDS, Moment, Pace
from victims import OWN_SERVER, SURVIVED, VICTIMS, dask_cluster, names, started, strike

from darkroom.flows.runtime.local_server import LocalServer
from darkroom.tasks.dataset.journal import FLUSH_SECONDS
from data.photos import photo, write_corpus

WORKERS = 2
OPTIONS = ("--width", "300", "--height", "300", "--max-failure-ratio", "1")
"""A rerun may find little left but broken images."""


REPEATED_SECONDS = 3 * FLUSH_SECONDS
"""An output that was written longer before the kill must not be made again. A part of the journal is due every
`FLUSH_SECONDS`, and as much again is allowed twice: for what is in flight (an image is journalled with its batch, once
the next one is handed on, a second or two later), and for the part itself, which waits until the disk has all."""

DRAWS = 5
"""So many moments are tried until one is found at which there is something to kill."""

LEAVE_SECONDS = 10.0
"""So long what an undisturbed run has started may take to end after it."""

TOLD_SECONDS = 30.0
"""So long it may take the server to take note of what it is told of task runs."""

OVER = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}

SLOW_AFTER = 5
SLOW_KINDS = 4


@dataclass(frozen=True)
class Disturbed:
    """A run that was disturbed, and what it had by then."""

    destination: Path
    moment: Moment
    after: float
    """Seconds from its start to the kill."""

    struck: int
    """Processes that were killed; none if there was none, or the run was over."""

    at: float
    """When, in seconds since the epoch."""

    code: int | None
    """How it ended; None if it did not."""

    seconds: float
    """From the kill to its end."""

    outputs: dict[str, Written]
    """Those that were there."""

    journalled: frozenset[str]
    """Those of them that the journal had."""

    alive: str
    """Processes of it that did not end."""

    @property
    def unfinished(self) -> frozenset[str]:
        """The flow runs whose working folder is left: those that the next run knows to have died."""
        return frozenset(path.name for path in self.destination.glob(".darkroom/runs/*"))


@dataclass(frozen=True)
class Outcome:
    """What came of one trial."""

    victim: str
    run: Disturbed
    repeated: int = 0
    """Images whose output was there when the victim died, and was made again."""

    oldest: float = 0.0
    """How many seconds before the kill the first of them was written."""

    problems: list[str] = field(default_factory=list)


@dataclass
class Chaos:
    """Trials on one source."""

    folder: Path
    source: Path
    api: Api
    random: random.Random
    expected: State
    pace: Pace

    trials: int = 0

    def trial(self, victim: str, moment: Moment | None = None) -> Outcome:
        """Disturb one run, at some moment or this one, run again, and compare."""
        for _ in range(DRAWS):
            self.trials += 1
            destination = self.folder / f"trial-{self.trials}"
            run = self._disturbed(victim, destination, moment or Moment.drawn(self.random, self.pace))
            if run.struck:
                return self._outcome(victim, run)
        return Outcome(victim, run, problems=["there was nothing to kill"])

    def _outcome(self, victim: str, run: Disturbed) -> Outcome:
        """Run again, and look at what there is then."""
        problems = []
        if run.code is None:
            problems.append(f"it was not over after {END_SECONDS:g} s")
        elif victim in SURVIVED and run.code:
            problems.append(f"it ended with {run.code}, though others can take the place of what was killed")
        if run.alive:
            problems.append(f"it left {run.alive}")
        unfinished = run.unfinished
        with started(self._command(run.destination), self._environment(victim)) as again:
            if code := again.ended(END_SECONDS):
                problems.append(f"the rerun ended with {code}: {again.last_words()}")
            elif code is None:
                problems.append(f"the rerun was not over after {END_SECONDS:g} s")
            elif left := names(again.survivors(LEAVE_SECONDS)):
                problems.append(f"the rerun left {left}")
            if code != 0:
                return Outcome(victim, run, problems=problems)
        problems += difference(State.of(run.destination), self.expected)
        there = outputs_of(run.destination)
        repeated = {name for name, written in run.outputs.items() if there.get(name) != written}
        oldest = max((run.outputs[name].age(run.at) for name in repeated), default=0.0)
        if known := len(repeated & run.journalled):
            problems.append(f"{known} images that the journal had were made again")
        if oldest > REPEATED_SECONDS:
            problems.append(f"an image was made again that had been there for {oldest:.1f} s")
        if victim not in OWN_SERVER:
            problems += self._untold(run, unfinished)
        return Outcome(victim, run, len(repeated), oldest, problems)

    def _untold(self, run: Disturbed, unfinished: frozenset[str]) -> list[str]:
        """Return which flow runs on a destination, and task runs of theirs, Prefect still takes for going on.

        Of a flow that was killed before it had a working folder, or after that was removed, the next can't know.
        """
        of_its_name = {"flow_runs": {"name": {"like_": f"{run.destination.name} "}}, "sort": "START_TIME_DESC"}
        found = self.api.post("flow_runs/filter", of_its_name)
        flows = [flow["id"] for flow in found if flow["parameters"]["destination"] == str(run.destination)]
        if run.code is None or run.code < 0:
            flows = [flow for flow in flows if flow == flows[0] or flow in unfinished]
        deadline = time.monotonic() + TOLD_SECONDS
        while (wrong := self._going_on(flows)) and time.monotonic() < deadline:
            time.sleep(0.2)
        return [f"Prefect has {', '.join(wrong)}"] if wrong else []

    def _going_on(self, flows: list[str]) -> list[str]:
        runs = [("flow run", self.api.flow_run(flow)) for flow in flows]
        runs += [("task run", task) for flow in flows for task in self.api.task_runs(flow)]
        return [f"{kind} {each['name']} {each['state_type']}" for kind, each in runs if each["state_type"] not in OVER]

    def _environment(self, victim: str) -> dict[str, str]:
        """Return the environment of a run: that of a user who has no server, or one with a server."""
        if victim in OWN_SERVER:
            return clean_environment(self.folder / "own")
        return self.api.environment

    def _command(self, destination: Path, *place: str) -> tuple[str | Path, ...]:
        return run_command(self.source, destination, *(place or ("--workers", str(WORKERS))))

    def _disturbed(self, victim: str, destination: Path, moment: Moment) -> Disturbed:
        """Run, and strike."""
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
            journalled = outputs_journalled(destination)
            at = time.time()
            struck = strike(victim, run, scheduler, self.random)
            outputs = outputs_of(destination)
            code = run.ended(END_SECONDS)
            seconds = time.time() - at
            # What the dead can't end ends by itself.
            alive = names(run.survivors(END_SECONDS if code is not None else 0))
            return Disturbed(destination, moment, after, struck, at, code, seconds, outputs, journalled, alive)


@contextmanager
def chaos(folder: Path, images: int, slow: int, seed: int, api: Api) -> Iterator[Chaos]:
    """Prepare trials: a source of so many images, and so many slow ones among them, and an undisturbed run on it."""
    source, calm = folder / "photos", folder / "calm"
    write_source(source, images, slow)
    (folder / "own").mkdir()
    with started(run_command(source, calm, "--workers", str(WORKERS)), api.environment) as run:
        pace = Pace.measured(run.process, calm)
        if run.process.returncode:
            raise SystemExit(f"the undisturbed run ended with {run.process.returncode}: {run.last_words()}")
    yield Chaos(folder, source, api, random.Random(seed), State.of(calm), pace)


def run_command(source: Path, destination: Path, *place: str) -> tuple[str | Path, ...]:
    """Return what starts a run, on some workers or another."""
    return (*DARKROOM, "run", source, destination, *OPTIONS, *place)


def write_source(source: Path, images: int, slow: int) -> None:
    """Write so many images, a few of them broken, and links to a few that are small files, but slow to decode.

    Shards are cut by bytes: those that the slow ones are in go on for several parts of the journal.
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


def main() -> None:
    """Run trials of every victim, and print what came of them."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--images", type=int, default=3_000, help="images of the source (default: 3,000)")
    parser.add_argument("--slow", type=int, default=240, help="of which so many are slow to decode (default: 240)")
    parser.add_argument("--trials", type=int, default=10, help="trials of each victim (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="decides the moments (default: 0)")
    parser.add_argument("--victims", nargs="+", choices=VICTIMS, default=VICTIMS, help="what is killed (default: all)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-", dir=CHECKOUT / "data") as name:
        folder = Path(name)
        os.environ.update(clean_environment(folder))
        server = LocalServer()
        server.wait_until_healthy()
        try:
            with chaos(folder, options.images, options.slow, options.seed, Api(server.api_url, folder)) as trials:
                wrong = _print_trials(trials, options.victims, options.trials)
        finally:
            server.stop()
    raise SystemExit(1 if wrong else 0)


def _print_trials(trials: Chaos, victims: list[str], count: int) -> int:
    pace = trials.pace
    print(
        f"{len(trials.expected.rows):,} images; undisturbed: {pace.start:.1f} s until work begins, {pace.work:.1f} s "
        f"of work, {pace.end:.1f} s until the end; a part of the journal every {FLUSH_SECONDS:g} s"
    )
    print(
        f"{'killed':10}{'struck':>7}{'in':>9}{'after':>8}{'journalled':>12}{'exit':>6}{'ended in':>10}{'repeated':>10}"
        f"{'oldest':>8}  after the rerun",
        flush=True,
    )
    wrong = 0
    for _ in range(count):
        for victim in victims:
            outcome = trials.trial(victim)
            wrong += bool(outcome.problems)
            print(_line(outcome), flush=True)
    print(f"{count * len(victims)} trials, {wrong} of them wrong")
    return wrong


def _line(outcome: Outcome) -> str:
    run = outcome.run
    code = "–" if run.code is None else run.code
    return (
        f"{outcome.victim:10}{run.struck:7}{run.moment.phase:>9}{run.after:7.1f}s{len(run.journalled):12,}{code:>6}"
        f"{run.seconds:9.1f}s{outcome.repeated:10,}{outcome.oldest:7.1f}s  "
        f"{'; '.join(outcome.problems) or 'as undisturbed'}"
    )


if __name__ == "__main__":
    main()
