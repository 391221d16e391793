"""Measure what it costs to flush outputs to the disk before they are journalled: `python -m benchmarks.durable`.

The same images are made again and again, with `sync_outputs` and without in turn, each time from nothing. The rates
are those of the time in which shards ran.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.bench import DARKROOM
from benchmarks.corpora import CACHE
from darkroom.flows.runtime.signals import sigterm_exits
from darkroom.tasks.dataset.layout import open_destination
from darkroom.tasks.reporting.history import read_history
from data.photos import write_corpus

SIZE = (500, 375)
OPTIONS = {"with": "--sync-outputs", "without": "--no-sync-outputs"}


def rate(source: Path, destination: Path, option: str) -> float:
    """Return how many images a second a run makes."""
    subprocess.run([*DARKROOM, "run", str(source), str(destination), option], check=True, capture_output=True)
    return read_history(open_destination(str(destination))).runs[0].images_per_second


def main() -> None:
    """Measure, and print each round and the medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.durable", description=__doc__)
    parser.add_argument("--images", type=int, default=3_000, help="number of images in the source (default: 3,000)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each kind (default: 5)")
    options = parser.parse_args()
    rates: dict[str, list[float]] = {name: [] for name in OPTIONS}
    CACHE.mkdir(exist_ok=True)
    with sigterm_exits(), tempfile.TemporaryDirectory(prefix="durable-", dir=CACHE) as name:
        folder = Path(name)
        write_corpus(folder / "photos", options.images, SIZE)
        for number in range(options.rounds):
            for kind, option in OPTIONS.items():
                rates[kind].append(rate(folder / "photos", folder / f"{kind} {number}", option))
            print(f"round {number + 1}: {describe({kind: found[-1] for kind, found in rates.items()})}", flush=True)
    print(f"median:  {describe({kind: median(found) for kind, found in rates.items()})}")


def describe(rates: dict[str, float]) -> str:
    """Return a line with both rates and their ratio."""
    return (
        f"{rates['with']:,.1f} images/s with sync_outputs, {rates['without']:,.1f} without: "
        f"{rates['with'] / rates['without']:.2f}"
    )


if __name__ == "__main__":
    main()
