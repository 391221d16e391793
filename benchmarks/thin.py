"""The thinnest Prefect flow on Dask that does what the independent pool does: `python -m benchmarks.thin SOURCE DEST`.

What it takes beyond the pool is the cost of Prefect and Dask, used like this: eight tasks, worker processes that
are forked from a prepared server, no dashboard. It needs a Prefect server at PREFECT_API_URL. Prints the number of
outputs.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import cv2
import dask
from prefect import flow, task
from prefect_dask import DaskTaskRunner

from benchmarks.independent import list_files, make_outputs

TASKS = 8


@task
def resize(names: list[str], source: Path, destination: Path) -> int:
    """Make the outputs of a part of the files."""
    cv2.setNumThreads(1)
    return make_outputs(names, source, destination)


@flow
def thin(source: Path, destination: Path) -> int:
    """Make the outputs of all files of a folder, and return their number."""
    names = list_files(source)
    parts = [resize.submit(names[part::TASKS], source, destination) for part in range(TASKS)]
    return sum(part.result() for part in parts)


def main() -> None:
    """Process the folder named on the command line."""
    dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"})
    cluster = {"n_workers": os.cpu_count(), "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    runner: Any = DaskTaskRunner(cluster_class="distributed.LocalCluster", cluster_kwargs=cluster)
    print(thin.with_options(task_runner=runner)(*map(Path, sys.argv[1:])))


if __name__ == "__main__":
    main()
