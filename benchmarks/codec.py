"""Measure what the codec process costs: `python -m benchmarks.codec`.

Compares, in turn and on the same images, (a) a loop in one process that reads, hashes, transforms and writes one image
after the other, and (b) the pipeline of a worker with its codec process and its journal. First the processor time of
all processes that take part, then the rate of two workers against two processes of the loop. Also prints how often
a codec process waited for images. The loop gets the codec process's settings of the memory allocator, without which
it is slower.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median

import psutil
from PIL import Image

from benchmarks.corpora import CACHE, Corpus
from benchmarks.independent import list_files
from benchmarks.pool import Maker
from darkroom.tasks.dataset.claim import claim_shard
from darkroom.tasks.dataset.journal import Journal
from darkroom.tasks.dataset.layout import open_destination
from darkroom.tasks.dataset.rows import PlannedImage
from darkroom.tasks.imaging.transform import configure_codecs
from darkroom.tasks.settings import Job, Recipe, Rules
from darkroom.tasks.worker.codec import Codec
from darkroom.tasks.worker.codec_handle import ENVIRONMENT
from darkroom.tasks.worker.images import Images
from darkroom.tasks.worker.pipeline import Pipeline
from darkroom.tasks.worker.shared_batch import SIZE, SharedBatch
from data.photos import CORPUS_QUALITY, encoded, photo

WARM_UP = 8
"""Number of images that both process before the measurement."""

WORKERS = 2


@dataclass(frozen=True, slots=True)
class Kind:
    """Images of one format and size: the number of different ones, and of names for them."""

    format: str
    size: tuple[int, int]
    different: int
    images: int

    def folder(self) -> Path:
        """Return a folder of them."""
        name = f"{self.format.lower()}-{self.size[0]}x{self.size[1]}"
        corpus = Corpus(name, name, self._write, (self.images, self.images), str(self.different))
        return corpus.folder(self.images)

    def _write(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        options = {"quality": CORPUS_QUALITY} if self.format == "JPEG" else {}
        for seed in range(self.different):
            data = encoded(Image.fromarray(photo(*self.size, seed)), self.format, **options)
            (folder / f"{seed:04}.{self.format.lower()}").write_bytes(data)


KINDS = (
    Kind("JPEG", (500, 375), 200, 1_000),
    Kind("PNG", (500, 375), 100, 1_000),
    Kind("WEBP", (500, 375), 100, 1_000),
    Kind("JPEG", (4000, 3000), 12, 192),
)


@dataclass(slots=True)
class Waits:
    """How often, and for how many seconds, codec processes waited for a batch, not counting the first one."""

    batches: int = 0
    waits: int = 0
    seconds: float = 0.0


class WatchedCodec(Codec):
    """A codec that records how often its process waits."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = Waits()

    def release(self, batch: SharedBatch, keep: int = SIZE) -> None:
        """Release a batch, and record how long the codec process had waited for it."""
        if self.waits.batches and batch.head.waited > 0.001:
            self.waits.waits += 1
            self.waits.seconds += batch.head.waited
        self.waits.batches += 1
        super().release(batch, keep)


@cache
def watched_codec() -> WatchedCodec:
    """Return this process's codec."""
    return WatchedCodec()


def loop(source: Path, destination: Path, names: Sequence[str]) -> Waits:
    """Make outputs in a loop of this process."""
    maker = Maker(source, destination / "images", Recipe(), Rules())
    for name in names:
        maker(name)
    return Waits()


def pipeline(source: Path, destination: Path, names: Sequence[str]) -> Waits:
    """Make outputs as a worker does."""
    recipe = Recipe()
    job = Job(
        run_id="run",
        source=str(source),
        destination=str(destination),
        recipe=recipe,
        recipe_id=recipe.recipe_id,
        rules=Rules(),
        run_file="run.parquet",
    )
    workspace = open_destination(str(destination)).workspace("run")
    workspace.store.create()
    claim = claim_shard(workspace, 0, "001-1-1")
    journal = Journal(claim)
    codec = watched_codec()
    waits = codec.waits = Waits()
    work = Pipeline(Images(job, claim, None), codec, lambda: None)
    for row in work.run([_planned(source, name) for name in names]):
        journal.add(row)
    journal.flush()
    return waits


def _planned(source: Path, name: str) -> PlannedImage:
    return PlannedImage(name, (source / name).stat().st_size, None, None, None)


Contender = Callable[[Path, Path, Sequence[str]], Waits]
CONTENDERS: tuple[Contender, ...] = (loop, pipeline)


@dataclass(frozen=True, slots=True)
class Part:
    """The share of one of several processes."""

    contender: Contender
    source: Path
    destination: Path
    names: list[str]


def measure_processor_time(kind: Kind, rounds: int, scratch: Path) -> Iterator[list[float]]:
    """Yield, for each round, the processor milliseconds an image that each contender took."""
    source = kind.folder()
    names = list_files(source)
    for contender in CONTENDERS:
        contender(source, scratch / contender.__name__, names[:WARM_UP])
    for _ in range(rounds):
        took = []
        for contender in CONTENDERS:
            before = _processor_time()
            contender(source, scratch / contender.__name__, names)
            took.append((_processor_time() - before) * 1e3 / len(names))
        yield took


def _processor_time() -> float:
    """Return the processor seconds of this process and its children."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return float(sum(times.user + times.system for times in (process.cpu_times() for process in processes)))


def measure_throughput(kind: Kind, rounds: int, scratch: Path) -> Iterator[tuple[list[float], Waits]]:
    """Yield, for each round, the images a second that two processes of each contender made, and how they waited."""
    source = kind.folder()
    names = list_files(source)
    for _ in range(rounds):
        rates, waits = [], Waits()
        for contender in CONTENDERS:
            seconds, waits = _race(contender, source, names, scratch)
            rates.append(len(names) / seconds)
        yield rates, waits


def _race(contender: Contender, source: Path, names: list[str], scratch: Path) -> tuple[float, Waits]:
    """Return how long `WORKERS` processes take for a part of the images each, from a common start to the last end."""
    context = multiprocessing.get_context("spawn")
    start, ends = context.Barrier(WORKERS + 1), context.SimpleQueue()
    parts = [Part(contender, source, scratch / f"{part}", names[part::WORKERS]) for part in range(WORKERS)]
    processes = [context.Process(target=_run_part, args=(part, start, ends)) for part in parts]
    for process in processes:
        process.start()
    start.wait()
    started = time.monotonic()
    results = [ends.get() for _ in processes]
    for process in processes:
        process.join()
    waits = [result for _, result in results]
    total = Waits(
        sum(each.batches for each in waits), sum(each.waits for each in waits), sum(each.seconds for each in waits)
    )
    return max(end for end, _ in results) - started, total


def _run_part(part: Part, start: Barrier, ends: multiprocessing.SimpleQueue[tuple[float, Waits]]) -> None:
    configure_codecs()
    part.contender(part.source, part.destination, part.names[:WARM_UP])
    start.wait()
    waits = part.contender(part.source, part.destination, part.names)
    ends.put((time.monotonic(), waits))


def main() -> None:
    """Measure, and print two tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.codec", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds (default: 5)")
    parser.add_argument("--quick", action="store_true", help="a smoke run: few images")
    options = parser.parse_args()
    rounds = options.rounds
    kinds = [replace(kind, different=2, images=16) for kind in KINDS] if options.quick else KINDS
    if not ENVIRONMENT.items() <= os.environ.items():
        os.execve(  # noqa: S606 - this very program
            sys.executable, [sys.executable, "-m", "benchmarks.codec", *sys.argv[1:]], os.environ | ENVIRONMENT
        )
    configure_codecs()
    CACHE.mkdir(exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="codec-", dir=CACHE))
    try:
        print("processor time, ms an image".ljust(32) + f"{'(a) loop':>12}{'(b) pipeline':>14}{'(b) - (a)':>20}")
        for kind in kinds:
            a, b = (median(column) for column in zip(*measure_processor_time(kind, rounds, scratch), strict=True))
            print(f"{_name(kind):32}{a:12.2f}{b:14.2f}{f'{b - a:+.2f} ({b / a - 1:+.1%})':>20}", flush=True)
        print(
            "\ntwo processes, images/s".ljust(33)
            + f"{'(a) loop':>12}{'(b) pipeline':>14}{'(b) / (a)':>12}  waits of (b)"
        )
        for kind in kinds:
            found = list(measure_throughput(kind, rounds, scratch))
            a, b = (median(column) for column in zip(*(rates for rates, _ in found), strict=True))
            ratio = median(rates[1] / rates[0] for rates, _ in found)
            waits = found[-1][1]
            shown = f"{waits.waits} of {waits.batches} batches, {waits.seconds:.2f} s"
            print(f"{_name(kind):32}{a:12.1f}{b:14.1f}{ratio:12.2f}  {shown}", flush=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _name(kind: Kind) -> str:
    return f"{kind.images:,} {kind.format} of {kind.size[0]}×{kind.size[1]}"


if __name__ == "__main__":
    main()
