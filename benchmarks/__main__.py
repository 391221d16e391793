"""Measure `darkroom run` and its competitors in one go: `make bench`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from benchmarks.bench import MEMORY_ROUND, SERVER_HOME, Bench, Sample, WrongOutputError, prefect_environment
from benchmarks.corpora import CACHE, Corpus, corpora
from benchmarks.measure import CommandError
from benchmarks.report import Results, render
from benchmarks.server import prefect_server
from darkroom.flows.runtime.cluster import local_workers
from darkroom.flows.runtime.signals import sigterm_exits
from darkroom.tasks.settings import Compute


def main() -> None:
    """Measure, print the tables, and exit with 0 unless something did not work."""
    options = _parser().parse_args()
    chosen = [corpus for corpus in corpora(quick=options.quick) if options.only in {None, corpus.name}]
    if not chosen:
        sys.exit(f"--only {options.only}: there is no such corpus; see --help.")
    try:
        with sigterm_exits():
            samples = _measure_all(chosen, rounds=1 if options.quick else options.rounds, keep=options.keep)
    except (CommandError, WrongOutputError) as problem:
        sys.exit(f"benchmarks: {problem}")
    except KeyboardInterrupt:
        sys.exit(130)
    print(render(Results(samples), chosen, _machine()))
    if options.json:
        options.json.write_text(json.dumps([asdict(sample) for sample in samples], indent=1))


def _measure_all(chosen: Sequence[Corpus], *, rounds: int, keep: bool) -> list[Sample]:
    """Measure round by round: first the one that samples memory, then the timed ones."""
    for corpus in chosen:
        print(f"{corpus.name}: {corpus.describes}", file=sys.stderr, flush=True)
        for images in corpus.sizes:
            corpus.folder(images)
    with (
        _scratch(keep=keep) as scratch,
        prefect_server(prefect_environment(scratch / SERVER_HOME), scratch / "server.log") as server,
    ):
        bench = Bench(scratch, server, keep)
        bench.measure_first(chosen[0])
        for number in (MEMORY_ROUND, *range(1, rounds + 1)):
            for corpus in chosen:
                bench.measure_round(corpus, number)
        return bench.samples


@contextmanager
def _scratch(*, keep: bool) -> Iterator[Path]:
    """Provide a folder for destinations and Prefect homes, on the file system of the checkout."""
    CACHE.mkdir(exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="run-", dir=CACHE))
    try:
        yield scratch
    finally:
        if keep:
            print(f"kept: {scratch}", file=sys.stderr)
        else:
            shutil.rmtree(scratch, ignore_errors=True)


def _machine() -> str:
    cores, memory = local_workers(Compute()), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return f"{platform.system()} {platform.machine()}, {cores} cores, {memory / 1e9:.0f} GB, {_python()}"


def _python() -> str:
    return f"Python {platform.python_version()}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="number of timed rounds (default: 3)")
    parser.add_argument("--quick", action="store_true", help="a smoke run: few images, one round")
    parser.add_argument(
        "--only", help="one corpus: " + ", ".join(corpus.name for corpus in corpora(quick=True)), metavar="CORPUS"
    )
    parser.add_argument("--keep", action="store_true", help="keep outputs and Prefect homes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write every measurement, too")
    return parser


if __name__ == "__main__":
    main()
