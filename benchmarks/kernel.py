"""Measure what one core needs for an image: `python -m benchmarks.kernel`.

Compares, in turn and on the same JPEGs, Darkroom's `transform`, the function of the independent pool, and a C program
on libjpeg-turbo (`kernel.c`, where a C compiler and libjpeg's headers are at hand; Debian: libjpeg62-turbo-dev). Each
runs in a process of its own, whose processor time counts, without its start. Nothing is written.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks.corpora import Corpus, corpora
from benchmarks.independent import list_files, resize_jpeg
from benchmarks.measure import ROOT
from darkroom.tasks.imaging.transform import configure_codecs, transform
from darkroom.tasks.settings import Recipe, Rules
from darkroom.tasks.worker.codec_handle import ENVIRONMENT

REPEATS = {"small": 1, "camera": 4, "shared-imagenet": 5, "shared-camera": 8}
"""How often a contender processes each image."""


def _darkroom(data: bytes) -> None:
    transform(data, Recipe(), Rules().max_pixels)


def _independent(data: bytes) -> None:
    resize_jpeg(data)


KERNELS: dict[str, Callable[[bytes], None]] = {"darkroom": _darkroom, "independent": _independent}


def run_kernel(name: str, folder: Path, repeats: int) -> float:
    """Run one of `KERNELS` in this process over a folder's files, and return the processor seconds."""
    configure_codecs()
    paths = [folder / file for file in list_files(folder)]
    KERNELS[name](paths[0].read_bytes())  # imports what it needs
    before = _processor_seconds()
    for _ in range(repeats):
        for path in paths:
            KERNELS[name](path.read_bytes())
    return _processor_seconds() - before


def _processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


@contextmanager
def compiled() -> Iterator[Path | None]:
    """Provide the C program; None if it can't be compiled here."""
    with tempfile.TemporaryDirectory() as folder:
        program, source = Path(folder, "kernel"), Path(__file__).with_name("kernel.c")
        compiler = shutil.which("cc")
        flags = ["-O3", "-march=native", "-o", str(program), str(source), "-ljpeg", "-lm"]
        done = subprocess.run([compiler, *flags], capture_output=True, text=True, check=False) if compiler else None
        if done and done.returncode == 0:
            yield program
        else:
            print(f"The C program is left out: {done.stderr if done else 'there is no C compiler.'}", file=sys.stderr)
            yield None


def measure(corpus: Corpus, program: Path | None) -> dict[str, float]:
    """Return the processor milliseconds an image of each contender, once."""
    folder, repeats = corpus.different(), REPEATS[corpus.name]
    files = [str(folder / name) for name in list_files(folder)]
    took: dict[str, float] = {}
    for name in KERNELS:
        command = [sys.executable, "-m", "benchmarks.kernel", "--one", name, str(folder), str(repeats)]
        took[name] = float(_output(command))
    if program:
        took["C"] = float(_output([str(program), str(repeats), *files]))
    return {name: seconds * 1e3 / len(files) / repeats for name, seconds in took.items()}


def _output(command: list[str]) -> str:
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=True
    ).stdout


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernel", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds (default: 5)")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, folder, repeats = options.one
        print(run_kernel(name, Path(folder), int(repeats)))
        return
    print(
        f"{'processor time, ms an image':32}{'Darkroom':>10}{'independent':>13}{'C':>8}{'rate to ind.':>14}{'to C':>8}"
    )
    with compiled() as program:
        for corpus in corpora(quick=False):
            rounds = [measure(corpus, program) for _ in range(options.rounds)]
            took = {name: median(each[name] for each in rounds) for name in rounds[0]}
            ratios = {name: median(each[name] / each["darkroom"] for each in rounds) for name in rounds[0]}
            c = (f"{took['C']:8.2f}", f"{ratios['C']:8.2f}") if program else (f"{'–':>8}", f"{'–':>8}")
            name = f"{corpus.name:32}{took['darkroom']:10.2f}{took['independent']:13.2f}"
            print(f"{name}{c[0]}{ratios['independent']:14.2f}{c[1]}", flush=True)


if __name__ == "__main__":
    main()
