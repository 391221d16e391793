"""Measure the flow process on millions of images, without any image: `python -m benchmarks.scale`.

1. Three nights of a large destination, of which only the tables exist: everything is new; then a few images
   are new, changed and gone; then nothing is. Each night is planned and published in a fresh process that
   has imported the flow, as a real one has.
2. A rerun with nothing to do over many tiny files that do exist, against a bare walk over the same files.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import synthetic
from benchmarks.corpora import CACHE
from benchmarks.measure import ROOT
from darkroom.flows.runtime.signals import sigterm_exits
from darkroom.tasks.dataset.layout import Destination, Workspace, open_destination
from darkroom.tasks.settings import Job

MEMORY_LIMIT_MB = 1000
WORKERS = 2
ROUNDS = 3


@dataclass(slots=True)
class Step:
    """Times the parts of what a process does."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Note how long the block takes."""
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started


def night(destination: Path, run_id: str, rows: int) -> dict[str, Any]:
    """Plan and publish one run over synthetic tables, and return what that took."""
    import darkroom.flows.preprocess  # noqa: F401 - a real flow process has it, and what it imports, in memory
    from darkroom.tasks import plan, vanished
    from darkroom.tasks.discover import Listing
    from darkroom.tasks.publish import publish
    from darkroom.tasks.recover import close_workspace
    from darkroom.tasks.reporting.figures import read_figures
    from darkroom.tasks.storage.store import Skipped

    imported_mb = _peak_mb()
    step = Step()
    with step.timed("check"):
        _check(destination)
    workspace, job = _begin(destination, run_id)
    # The outputs exist only as a table, which replaces a walk over them.
    plan.list_outputs = partial(_take_outputs, destination)  # type: ignore[attr-defined]
    vanished.FEW_OUTPUTS = 0
    vanished.write_outputs = partial(synthetic.write_made, workspace)  # type: ignore[attr-defined]
    shutil.copyfile(destination / f"{run_id}.parquet", workspace.store.where(workspace.listing))
    with step.timed("plan"):
        planned = plan.make_plan(workspace, job, Listing(rows, 0, Skipped()), lambda: WORKERS)
    if not planned.nothing_to_do:
        _run("journal", destination, run_id)
        with step.timed("publish"):
            publish(workspace, job, ended=True)
        with step.timed("report"):
            read_figures(workspace, job)
    with step.timed("close"):
        close_workspace(workspace)
    return {
        "seconds": step.seconds,
        "shards": len(planned.shards),
        "reasons": planned.reasons,
        "deleted": planned.deleted,
        "imported_mb": imported_mb,
        "peak_mb": _peak_mb(),
    }


def _check(destination: Path) -> None:
    """Check the destination's files before planning, as the flow does."""
    from darkroom.tasks.preflight import check_manifest
    from darkroom.tasks.recover import recover

    place = open_destination(str(destination))
    check_manifest(place)
    recover(place)


def _take_outputs(destination: Path, _place: Destination, listing: Path) -> None:
    shutil.copyfile(destination / "outputs.parquet", listing)


def rerun(source: Path, destination: Path) -> dict[str, Any]:
    """List and plan as a run does, over files that exist, and return what that took."""
    import darkroom.flows.preprocess  # noqa: F401
    from darkroom.tasks.discover import discover, list_outputs
    from darkroom.tasks.plan import make_plan
    from darkroom.tasks.recover import close_workspace
    from darkroom.tasks.storage.locations import open_source

    step = Step()
    with step.timed("check"):
        _check(destination)
    workspace, job = _begin(destination, f"run-{os.getpid()}")
    with step.timed("discover"):
        listing = discover(open_source(str(source), job.rules), workspace, job.rules)
    with step.timed("plan, outputs listed"):
        planned = make_plan(workspace, job, listing, lambda: WORKERS)
    _expect("nothing to do", planned.nothing_to_do, True)
    with step.timed("close"):
        close_workspace(workspace)
    total = sum(step.seconds.values())
    with step.timed("list_outputs alone"):
        list_outputs(open_destination(str(destination)), destination / "outputs.parquet")
    return {"seconds": step.seconds, "total": total, "peak_mb": _peak_mb()}


def walk(*roots: Path) -> float:
    """Return the seconds that a bare `os.scandir` and `stat` of every file below some folders take."""
    started = time.perf_counter()
    folders = [os.fsencode(root) for root in roots]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    entry.stat()
    return time.perf_counter() - started


def _begin(destination: Path, run_id: str) -> tuple[Workspace, Job]:
    """Make a run's working folder as the flow does."""
    workspace = open_destination(str(destination)).workspace(run_id)
    job = synthetic.job(run_id, destination)
    workspace.begin(job)
    return workspace, job


def _run(action: str, *arguments: object) -> Any:
    """Run one of this module's steps in a fresh process, and return what it measured."""
    command = [sys.executable, "-m", "benchmarks.scale", "--step", action, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"benchmarks.scale: {action} failed, see above")
    return json.loads(done.stdout)


def _peak_mb() -> float:
    """Return the most memory (RSS) that this process has had, in megabytes."""
    try:
        # Not ru_maxrss: that of a new process begins with what its parent had.
        text = Path("/proc/self/status").read_text()
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS counts bytes
    return int(text.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


def _expect(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise SystemExit(f"benchmarks.scale: {what}: {found} instead of {expected}")


def measure_nights(folder: Path, rows: int) -> None:
    """Measure three nights of a destination of `rows` images, and print what they took."""
    few = rows // 100
    destination = folder / "tables"
    destination.mkdir()
    print(f"\n{rows:,} images, of which only the tables exist\n")
    nights = {
        "all new": (synthetic.Night(rows), {"new": rows}, 0),
        "1 % new, changed, gone": (
            synthetic.Night(rows, first=few, changed=few, new=few),
            {"changed": few, "new": few},
            few,
        ),
        "nothing to do": (synthetic.Night(rows, first=few, changed=few, new=few), {}, 0),
    }
    for number, (name, (listing, reasons, deleted)) in enumerate(nights.items()):
        synthetic.write_outputs(destination)
        listing.write(destination / f"night-{number}.parquet")
        took = _run("night", destination, f"night-{number}", rows)
        _expect("reasons", took["reasons"], reasons)
        _expect("deleted", took["deleted"], deleted)
        seconds = ", ".join(f"{step} {value:.2f} s" for step, value in took["seconds"].items())
        verdict = "met" if took["peak_mb"] < MEMORY_LIMIT_MB else "MISSED"
        print(
            f"{name:24} {took['shards']:>5,} shards: {seconds}; peak RSS {took['peak_mb']:,.0f} MB "
            f"({took['imported_mb']:,.0f} MB after imports) < {MEMORY_LIMIT_MB:,} MB: {verdict}",
            flush=True,
        )


def measure_reruns(folder: Path, files: int) -> None:
    """Measure a rerun with nothing to do over `files` tiny files, and print what it took."""
    source, destination = folder / "files", folder / "prepared"
    print(f"\nNothing to do over {files:,} tiny files and their outputs (everything in the kernel's caches)\n")
    synthetic.write_tree(source, files)
    synthetic.write_prepared(source, destination)
    rounds = [
        (walk(source), walk(source, destination / "images"), _run("rerun", source, destination)) for _ in range(ROUNDS)
    ]
    bare = median(of_source for of_source, _, _ in rounds)
    both = median(of_both for _, of_both, _ in rounds)
    total = median(took["total"] for _, _, took in rounds)
    print(f"bare walk of the source                  {bare:6.2f} s")
    print(f"bare walk of source and outputs          {both:6.2f} s")
    print(f"checking, listing and planning           {total:6.2f} s: {total - bare:.2f} s beyond the source's walk,")
    print(f"                                                   {total - both:.2f} s beyond the walk of both")
    for name in rounds[0][2]["seconds"]:
        print(f"  {name:38} {median(took['seconds'][name] for _, _, took in rounds):6.2f} s")
    print(f"peak RSS                                 {max(took['peak_mb'] for _, _, took in rounds):6,.0f} MB")


def _do_step(action: str, arguments: list[str]) -> None:
    """Do one step in this process, and print what it took as JSON."""
    if action == "night":
        took: object = night(Path(arguments[0]), arguments[1], int(arguments[2]))
    elif action == "journal":
        took = synthetic.write_journal(open_destination(arguments[0]).workspace(arguments[1]))
    else:
        took = rerun(Path(arguments[0]), Path(arguments[1]))
    print(json.dumps(took))


def main() -> None:
    """Measure, and print the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="images of the tables (default: 1,000,000)")
    parser.add_argument("--files", type=int, default=200_000, help="tiny files that exist (default: 200,000)")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        _do_step(options.step[0], options.step[1:])
        return
    CACHE.mkdir(exist_ok=True)
    with sigterm_exits(), tempfile.TemporaryDirectory(prefix="scale-", dir=CACHE) as folder:
        if options.rows:
            measure_nights(Path(folder), options.rows)
        if options.files:
            measure_reruns(Path(folder), options.files)


if __name__ == "__main__":
    main()
