"""Measure what the careful lane costs each healthy image: `python -m benchmarks.careful`.

Each image goes through the fast lane and the careful one in turn, in one process, as in a worker that has nothing
else to do; nothing is read or written. The outputs of both must be the same bytes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from PIL import Image

from benchmarks import synthetic
from data.photos import CORPUS_QUALITY, encoded, photo
from tasks.imaging import configure_codecs
from tasks.lanes import Make, careful_lane, fast_lane
from tasks.recipe import Job

SIZES = {(500, 375): 40, (4000, 3000): 4}
"""Width and height in pixels, and how many different images of that size there are."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Milliseconds an image, in the median, and of starting a child."""

    fast: float
    careful: float
    start: float


def measure(images: Sequence[bytes], job: Job, rounds: int) -> Cost:
    """Return what images cost in both lanes."""
    with fast_lane(job) as fast, careful_lane(job, None) as careful:
        fast(images[0])
        start, _ = _timed(careful, images[0])
        took: list[tuple[float, float]] = []
        for data in images * rounds:
            (fast_ms, expected), (careful_ms, output) = _timed(fast, data), _timed(careful, data)
            if output != expected:
                raise SystemExit("benchmarks.careful: the two lanes made different outputs")
            took.append((fast_ms, careful_ms))
    fast_ms, careful_ms = (median(column) for column in zip(*took, strict=True))
    return Cost(fast_ms, careful_ms, start - careful_ms)


def _timed(make: Make, data: bytes) -> tuple[float, bytes]:
    started = time.perf_counter()
    output = make(data).data
    return (time.perf_counter() - started) * 1e3, output


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.careful", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="how often each image is made (default: 10)")
    rounds = parser.parse_args().rounds
    configure_codecs()
    print(f"{'ms an image':>28} {'fast lane':>10} {'careful':>10} {'more':>16} {'start of a child':>18}")
    for (width, height), count in SIZES.items():
        images = [
            encoded(Image.fromarray(photo(width, height, seed)), "JPEG", quality=CORPUS_QUALITY)
            for seed in range(count)
        ]
        # In a thread, as Dask's tasks are: the fast lane's deadline is part of what it costs.
        with ThreadPoolExecutor(1) as thread:
            cost = thread.submit(measure, images, synthetic.job("careful", Path("none")), rounds).result()
        more = cost.careful - cost.fast
        kilobytes = sum(map(len, images)) / len(images) / 1e3
        print(
            f"{f'{width}×{height}, {kilobytes:,.0f} kB':>28} {cost.fast:10.2f} {cost.careful:10.2f} "
            f"{f'{more:.2f} ({more / cost.fast:.0%})':>16} {cost.start:18.0f}",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
