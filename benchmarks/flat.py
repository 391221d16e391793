"""Check that the processes of a long run don't grow: `python -m benchmarks.flat`.

Runs `darkroom run` over many small images, and prints, over time, memory (RSS), open file descriptors and threads of
the flow process and of the Dask worker that holds most.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.bench import DARKROOM
from benchmarks.corpora import CACHE
from darkroom.flows.runtime.signals import sigterm_exits
from data.photos import write_corpus

DIFFERENT = 500
"""Different images; the rest are links to them."""

SIZE = (160, 120)
SAMPLE_SECONDS = 1.0
LINES = 20
GROWTH_LIMITS = (20.0, 8, 8)
"""Megabytes, descriptors and threads by which the second half of the work may exceed the first."""


@dataclass(frozen=True, slots=True)
class Held:
    """Memory, descriptors and threads of a process."""

    mb: float
    descriptors: int
    threads: int


@dataclass(frozen=True, slots=True)
class Sample:
    """What a run held at one moment of its work."""

    seconds: float
    outputs: int
    flow: Held
    worker: Held


def write_source(folder: Path, images: int) -> None:
    """Write small JPEGs, a thousand to a folder."""
    originals = write_corpus(folder / "originals", min(images, DIFFERENT), SIZE)
    for number in range(len(originals), images):
        path = folder / f"{number // 1000:06}" / f"link {number:09}.jpg"
        path.parent.mkdir(exist_ok=True)
        os.link(originals[number % len(originals)], path)


def _held(process: psutil.Process) -> Held:
    with process.oneshot():
        return Held(process.memory_info().rss / 1e6, process.num_fds(), process.num_threads())


def _workers(flow: psutil.Process) -> list[psutil.Process]:
    """Return the Dask workers of a run: what its fork server has forked."""
    forkers = [
        child for child in flow.children() if any("multiprocessing.forkserver" in word for word in child.cmdline())
    ]
    return [worker for forker in forkers for worker in forker.children()]


def _most(held: list[Held]) -> Held:
    return Held(*(max(getattr(one, name) for one in held) for name in ("mb", "descriptors", "threads")))


def _sample(flow: psutil.Process, started: float, images: Path) -> Sample | None:
    """Return what the run holds now; None while it has no workers."""
    try:
        workers = [_held(worker) for worker in _workers(flow)]
        if not workers:
            return None
        outputs = sum(len(files) for _, _, files in os.walk(images))
        return Sample(time.monotonic() - started, outputs, _held(flow), _most(workers))
    except psutil.Error:
        return None


def watch(source: Path, destination: Path, images: int) -> list[Sample]:
    """Run the command, and return what its processes held while it worked."""
    command = [*DARKROOM, "run", str(source), str(destination), "--width", "96", "--height", "96", "--workers", "2"]
    started = time.monotonic()
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    samples: list[Sample] = []
    while run.poll() is None:
        if sample := _sample(psutil.Process(run.pid), started, destination / "images"):
            samples.append(sample)
        time.sleep(SAMPLE_SECONDS)
    output, _ = run.communicate()
    if run.returncode or f"{images:,} made, 0 failed" not in output:
        raise SystemExit(f"benchmarks.flat: the run failed: {output}")
    print(next(line for line in output.splitlines() if "made" in line))
    return [sample for sample in samples if 0 < sample.outputs < images]


def print_curve(samples: list[Sample]) -> bool:
    """Print some of the samples, and return whether anything has grown from the first half to the second."""
    print(f"\n{'':>18} | {'flow':^27} | {'worker':^27}")
    heads = f"{'MB':>9}{'fds':>9}{'threads':>9}"
    print(f"{'s':>7} {'images':>10} | {heads} | {heads}")
    for sample in samples[:: max(1, len(samples) // LINES)]:
        columns = (f"{held.mb:9.0f}{held.descriptors:9}{held.threads:9}" for held in (sample.flow, sample.worker))
        print(f"{sample.seconds:7.0f} {sample.outputs:10,} | {' | '.join(columns)}")
    # Modules and caches are loaded once, which is no growth: the first tenth doesn't count.
    settled = samples[len(samples) // 10 :]
    first, second = settled[: len(settled) // 2], settled[len(settled) // 2 :]
    grows = False
    for name in ("flow", "worker"):
        before, after = (_most([getattr(sample, name) for sample in half]) for half in (first, second))
        growth = (after.mb - before.mb, after.descriptors - before.descriptors, after.threads - before.threads)
        is_flat = all(more < limit for more, limit in zip(growth, GROWTH_LIMITS, strict=True))
        grows |= not is_flat
        verdict = "flat" if is_flat else "GROWS"
        print(
            f"{name}: at most {before.mb:.0f} MB, {before.descriptors} descriptors, {before.threads} threads in the "
            f"first half; {after.mb:.0f} MB, {after.descriptors}, {after.threads} in the second: {verdict}"
        )
    return grows


def main() -> None:
    """Measure, and print the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flat", description=__doc__)
    parser.add_argument("--images", type=int, default=100_000, help="number of images in the source (default: 100,000)")
    options = parser.parse_args()
    CACHE.mkdir(exist_ok=True)
    with sigterm_exits(), tempfile.TemporaryDirectory(prefix="flat-", dir=CACHE) as name:
        folder = Path(name)
        (folder / "photos").mkdir()
        write_source(folder / "photos", options.images)
        grows = print_curve(watch(folder / "photos", folder / "dataset", options.images))
    raise SystemExit(1 if grows else 0)


if __name__ == "__main__":
    main()
