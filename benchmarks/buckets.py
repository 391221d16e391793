"""Measure what a bucket costs, nearby and far away: `python -m benchmarks.buckets`.

The same small images go from folder to folder, from bucket to bucket of a server on this machine, and from bucket to
bucket with a delay of each request. A proxy delays the requests; it is there without a delay, too. A run has as many
cores as workers, also from folder to folder, and server and proxy have the others: what they take is not taken from the
run. A first, untimed round samples memory.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil

from benchmarks.bench import DARKROOM, prefect_environment
from benchmarks.corpora import CACHE
from benchmarks.measure import CommandError, Measurement, measure
from darkroom.flows.runtime.signals import sigterm_exits
from data.photos import write_corpus
from tests.delay_proxy import delay_proxy
from tests.weed_server import weed_server

CORES = sorted(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True)
class Way:
    """A source and a destination to compare with others."""

    name: str
    source: str
    destination: str
    environment: dict[str, str]
    server: int
    """The server's process."""

    def others_seconds(self) -> float:
        """Return the CPU time that the server and the proxies have used so far."""
        used = psutil.Process(self.server).cpu_times()
        return float(used.user + used.system) + time.process_time()


@dataclass(frozen=True, slots=True)
class Took:
    """What a run took."""

    measured: Measurement
    images: int
    rate: float
    """Images a second while shards ran."""

    others_s: float
    """CPU time of the server and the proxies."""

    @property
    def cpu_ms(self) -> float:
        """CPU time of an image."""
        return self.measured.cpu_s / self.images * 1e3

    @property
    def others_ms(self) -> float:
        """CPU time of the server and the proxies for an image."""
        return self.others_s / self.images * 1e3

    def describe(self) -> str:
        """Return a line of figures."""
        memory = f", {self.measured.peak_mb:,.0f} MB at most" if self.measured.peak_mb else ""
        return (
            f"{self.rate:7.1f} images/s, {self.measured.wall_s:6.2f} s in all, {self.cpu_ms:6.2f} ms of CPU an image "
            f"and {self.others_ms:5.2f} ms of server and proxy{memory}"
        )


@contextmanager
def ways(folder: Path, images: int, size: tuple[int, int], delay: float) -> Iterator[list[Way]]:
    """Provide the ways to compare, each with `images` images."""
    write_corpus(folder / "photos", images, size)
    with weed_server(folder) as server, delay_proxy(server.url, 0) as prompt, delay_proxy(server.url, delay) as slow:
        bucket = server.make_bucket()
        server.plant_folder(bucket, "photos", folder / "photos")
        near = prefect_environment(folder / "home") | server.environment
        far = near | {"AWS_ENDPOINT_URL": slow}
        near["AWS_ENDPOINT_URL"] = prompt
        yield [
            Way("folder to folder", str(folder / "photos"), str(folder / "out"), near, server.pid),
            Way("bucket to bucket", f"s3://{bucket}/photos", f"s3://{bucket}/near", near, server.pid),
            Way(
                f"with {delay * 1e3:g} ms more a request",
                f"s3://{bucket}/photos",
                f"s3://{bucket}/far",
                far,
                server.pid,
            ),
        ]


def take(way: Way, number: int, images: int, workers: int) -> Took:
    """Measure a run into a destination of its own."""
    cores = ",".join(map(str, CORES[:workers]))
    run = [*DARKROOM, "run", way.source, f"{way.destination}-{number}", "--workers", str(workers)]
    command = ["taskset", "--cpu-list", cores, *run]
    before = way.others_seconds()
    measured = measure(command, way.environment, memory=number == 0)
    others_s = way.others_seconds() - before
    rate = re.search(r" at ([\d,.]+) images/s", measured.output)
    if f"{images:,} made" not in measured.output or not rate:
        raise CommandError(f"{way.name}: the run did not make {images:,} images:\n{measured.output}")
    return Took(measured, images, float(rate[1].replace(",", "")), others_s)


def main() -> None:
    """Measure, and print each run and the medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.buckets", description=__doc__)
    parser.add_argument("--images", type=int, default=3_000, help="number of images in the source (default: 3,000)")
    parser.add_argument(
        "--size", type=int, nargs=2, default=(500, 375), help="their width and height (default: 500 375)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="timed runs of each kind (default: 3)")
    parser.add_argument("--delay", type=float, default=30.0, help="milliseconds to delay each request (default: 30)")
    parser.add_argument("--workers", type=int, default=1, help="worker processes (default: 1)")
    options = parser.parse_args()
    if not (others := CORES[options.workers :]):
        parser.error(f"{options.workers} workers need {options.workers + 1} cores; this machine has {len(CORES)}")
    os.sched_setaffinity(0, others)  # which server and proxy inherit
    took: defaultdict[str, list[Took]] = defaultdict(list)
    CACHE.mkdir(exist_ok=True)
    with (
        sigterm_exits(),
        tempfile.TemporaryDirectory(prefix="buckets-", dir=CACHE) as name,
        ways(Path(name), options.images, tuple(options.size), options.delay / 1e3) as compared,
    ):
        for number in range(options.rounds + 1):
            for way in compared:
                found = take(way, number, options.images, options.workers)
                print(f"round {number}: {way.name:28} {found.describe()}", flush=True)
                if number:
                    took[way.name].append(found)
    _print_medians(took)


def _print_medians(took: dict[str, list[Took]]) -> None:
    rates = {name: median(found.rate for found in runs) for name, runs in took.items()}
    cpu = {name: median(found.cpu_ms for found in runs) for name, runs in took.items()}
    local = next(iter(rates))
    before = rates[local]
    for name, rate in rates.items():
        print(
            f"median:  {name:28} {rate:7.1f} images/s, {rate / rates[local]:.2f} of folder to folder, "
            f"{rate / before:.2f} of the line above; {cpu[name]:.2f} ms of CPU an image, {cpu[name] - cpu[local]:+.2f}"
        )
        before = rate


if __name__ == "__main__":
    main()
