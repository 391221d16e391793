"""What is measured, and in which order."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.corpora import Corpus
from benchmarks.measure import Measurement, measure
from benchmarks.server import RunningServer

IMPORT = "import"
LOOP = "loop"
POOL = "pool"
CAREFUL = "careful"
INDEPENDENT = "independent"
THIN = "thin"
HELP = "help"
STATUS = "status"
FIRST = "first"
COLD = "cold"
SERVED = "served"
COLD_NOOP = "cold no-op"
SERVED_NOOP = "served no-op"

LABELS = {
    LOOP: "article's loop, nothing written",
    POOL: "article's pool, nothing written",
    CAREFUL: "careful pool, Darkroom's resizing",
    INDEPENDENT: "plain pool, no code of Darkroom's",
    THIN: "thinnest Prefect + Dask flow, server running",
    COLD: "darkroom run, no server",
    SERVED: "darkroom run, server running",
    COLD_NOOP: "rerun with nothing to do, no server",
    SERVED_NOOP: "rerun with nothing to do, server running",
    FIRST: "very first darkroom run",
    HELP: "darkroom --help",
    STATUS: "darkroom status",
}

WITH_SERVER = {THIN, SERVED, SERVED_NOOP}

SERVER_HOME = "home"
"""Folder, below the scratch folder, of the server that is already running."""

MEMORY_ROUND = 0
"""The round in which memory is sampled, and whose times don't count."""

DARKROOM = [str(Path(sys.executable).with_name("darkroom"))]
if not Path(*DARKROOM).exists():
    DARKROOM = [sys.executable, "-m", "darkroom.flows.cli.commands"]


class WrongOutputError(Exception):
    """A contender did not do its work."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured run of one contender."""

    contender: str
    corpus: str
    images: int
    round: int
    wall_s: float
    cpu_s: float
    peak_mb: float | None
    work_s: float | None = None
    """Seconds in which Darkroom's shards ran, starting the Dask workers included, by its own account."""

    span_s: float | None = None
    """Seconds from Darkroom's first finished image to its last."""


@dataclass(frozen=True, slots=True)
class Trial:
    """The images and the round in which contenders meet."""

    corpus: Corpus
    images: int
    round: int

    @property
    def source(self) -> Path:
        """The images' folder."""
        return self.corpus.folder(self.images)

    def sample(self, contender: str, measured: Measurement) -> Sample:
        """Return a contender's sample."""
        return Sample(
            contender, self.corpus.name, self.images, self.round, measured.wall_s, measured.cpu_s, measured.peak_mb
        )


@dataclass(slots=True)
class Bench:
    """Runs contenders, checks their outputs, and collects their samples."""

    scratch: Path
    server: RunningServer
    keep: bool = False
    samples: list[Sample] = field(default_factory=list)
    _expected: dict[tuple[str, int], tuple[int, str]] = field(default_factory=dict)
    """By corpus and number of images: how many outputs there are, and the hash of all."""

    def measure_first(self, corpus: Corpus) -> None:
        """Measure the first run that a user ever makes: there is no Prefect database yet."""
        trial = Trial(corpus, corpus.sizes[0], 1)
        self._careful_pool(trial)
        destination = self._destination(FIRST)
        self._add(self._darkroom(FIRST, trial, destination))
        self._set_aside(destination)

    def measure_round(self, corpus: Corpus, number: int) -> None:
        """Measure all contenders one after the other, at both numbers of images if the round is timed."""
        for images in corpus.sizes[:1] if number == MEMORY_ROUND else corpus.sizes:
            trial = Trial(corpus, images, number)
            self._add(self._import(number))
            self._add(self._article(LOOP, "loop", trial))
            self._add(self._article(POOL, "pool", trial))
            self._add(self._careful_pool(trial))
            self._add(self._rival(INDEPENDENT, trial))
            self._add(self._rival(THIN, trial))
            self._add(self._command(HELP, trial, ["--help"]))
            for run, rerun in ((COLD, COLD_NOOP), (SERVED, SERVED_NOOP)):
                destination = self._destination(run)
                self._add(self._darkroom(run, trial, destination))
                self._add(self._darkroom(rerun, trial, destination))
                if run == SERVED:
                    self._add(self._command(STATUS, trial, ["status", str(destination)]))
                self._set_aside(destination)

    def _import(self, number: int) -> Sample:
        """Measure T, the time that importing prefect_dask takes."""
        measured = self._measure(IMPORT, [sys.executable, "-c", "import prefect_dask"])
        return Sample(IMPORT, "", 0, number, measured.wall_s, measured.cpu_s, None)

    def _article(self, contender: str, way: str, trial: Trial) -> Sample:
        command = [sys.executable, "-m", "benchmarks.article", way, str(trial.source)]
        measured = self._measure(contender, command, trial)
        _check(contender, "images", int(measured.output), trial.images)
        return trial.sample(contender, measured)

    def _rival(self, contender: str, trial: Trial) -> Sample:
        """Measure a contender without code of Darkroom's, and check that it made an output of each image."""
        destination = self._destination(contender)
        command = [sys.executable, "-m", f"benchmarks.{contender}", str(trial.source), str(destination)]
        measured = self._measure(contender, command, trial)
        _check(contender, "outputs", sum(1 for _ in _files(destination)), trial.images)
        self._set_aside(destination)
        return trial.sample(contender, measured)

    def _command(self, contender: str, trial: Trial, arguments: list[str]) -> Sample:
        return trial.sample(contender, self._measure(contender, [*DARKROOM, *arguments], trial))

    def _careful_pool(self, trial: Trial) -> Sample:
        """Measure the careful pool, with whose outputs Darkroom's are compared."""
        destination = self._destination(CAREFUL)
        command = [sys.executable, "-m", "benchmarks.pool", str(trial.source), str(destination)]
        measured = self._measure(CAREFUL, command, trial)
        made = _digest(destination / "images")
        _check(CAREFUL, "outputs", made[0], int(measured.output))
        _check(CAREFUL, "outputs", made, self._expected.setdefault((trial.corpus.name, trial.images), made))
        self._set_aside(destination)
        return trial.sample(CAREFUL, measured)

    def _darkroom(self, contender: str, trial: Trial, destination: Path) -> Sample:
        """Measure a run, and check that manifest and outputs match those of the careful pool."""
        command = [*DARKROOM, "run", str(trial.source), str(destination)]
        measured = self._measure(contender, command, trial)
        manifest = destination / "manifest.parquet"
        idle = contender in {COLD_NOOP, SERVED_NOOP}
        expected = self._expected[trial.corpus.name, trial.images]
        _check(contender, "outputs", _digest(destination / "images"), expected)
        _check(contender, "rows", pq.read_metadata(manifest).num_rows, trial.images)
        _check(contender, "nothing to do", "Nothing to do" in measured.output, idle)
        sample = trial.sample(contender, measured)
        if not idle:
            work_s = _work_seconds(measured.output, trial.images)
            sample = replace(sample, work_s=work_s, span_s=_span_seconds(manifest))
        return sample

    def _measure(self, contender: str, command: list[str], trial: Trial | None = None) -> Measurement:
        """Measure a command of a contender, with the CPU time that its server spends on it."""
        os.sync()  # earlier writes are on the disk before the clock starts
        server_before = self.server.cpu_seconds()
        memory = trial is not None and trial.round == MEMORY_ROUND
        measured = measure(command, self._environment(contender), memory=memory)
        server_cpu = self.server.cpu_seconds() - server_before if contender in WITH_SERVER else 0
        return replace(measured, cpu_s=measured.cpu_s + server_cpu)

    def _environment(self, contender: str) -> dict[str, str]:
        """Return the environment of a contender: where its Prefect home is, and its server if it has one."""
        if contender in {FIRST, COLD, COLD_NOOP}:
            return prefect_environment(self.scratch / "cold-home")
        env = prefect_environment(self.scratch / SERVER_HOME)
        return {**env, "PREFECT_API_URL": self.server.api_url} if contender in WITH_SERVER else env

    def _destination(self, contender: str) -> Path:
        return self.scratch / "out" / contender.replace(" ", "-")

    def _set_aside(self, destination: Path) -> None:
        """Rename a destination and, unless it is to be kept, empty its files.

        Deleting them would slow down whoever creates files in the next minutes: ext4 looks for an inode that was not
        deleted recently (`recently_deleted` in fs/ext4/ialloc.c).
        """
        aside = destination.rename(destination.with_name(f"{destination.name}-{len(self.samples)}"))
        if not self.keep:
            for path in _files(aside):
                os.truncate(path, 0)

    def _add(self, sample: Sample) -> None:
        self.samples.append(sample)
        what = f"{sample.corpus} × {sample.images:,}: {LABELS[sample.contender]}" if sample.corpus else "import"
        peak = f", {sample.peak_mb:,.0f} MB" if sample.peak_mb else ""
        kind = "memory" if sample.round == MEMORY_ROUND else f"round {sample.round}"
        print(f"{kind:8} {what}: {sample.wall_s:.2f} s{peak}", file=sys.stderr, flush=True)


def prefect_environment(home: Path) -> dict[str, str]:
    """Return this process's environment without settings of Prefect, except for its home."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {**ours, "PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}


def _check(contender: str, what: str, found: object, expected: object) -> None:
    if found != expected:
        raise WrongOutputError(f"{LABELS[contender]}: {what}: {found} instead of {expected}")


def _digest(images: Path) -> tuple[int, str]:
    """Return the number of files below a folder and a hash of their names and bytes."""
    digest = hashlib.sha256()
    count = 0
    for path in _files(images):
        digest.update(f"{path.relative_to(images)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
        count += 1
    return count, digest.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _work_seconds(output: str, images: int) -> float:
    """Return how long Darkroom says that its shards ran, from the rate that it prints."""
    rate = re.search(r" at ([\d,.]+) images/s", output)
    if not rate:
        raise WrongOutputError(f"darkroom run printed no rate:\n{output}")
    return images / float(rate[1].replace(",", ""))


def _span_seconds(manifest: Path) -> float:
    """Return the seconds from the first finished image to the last."""
    ends = pc.min_max(pq.read_table(manifest, columns=["processed_at"])["processed_at"]).as_py()
    return float((ends["max"] - ends["min"]).total_seconds())
