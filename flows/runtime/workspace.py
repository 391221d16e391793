"""What a run holds while it works: its destination's lease, a workspace, a temporary destination."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from darkroom.flows.runtime.crashed import mark_dead_runs
from darkroom.tasks.dataset.layout import MANIFEST, Destination, Workspace, open_destination
from darkroom.tasks.dataset.lease import HeldLease, hold_lease
from darkroom.tasks.recover import close_workspace
from darkroom.tasks.settings import Job
from darkroom.tasks.storage.store import exists
from darkroom.tasks.storage.store_errors import writing


@contextmanager
def hold_destination(destination: Destination, run_id: str) -> Iterator[HeldLease]:
    """Hold a destination's lease for a run, and mark the runs as Crashed in Prefect that died at it.

    Raises:
        InUseError: another run holds it.
        DestinationError: it can't be written to, also if that happens later.
    """
    with writing(destination.location), hold_lease(destination, run_id) as lease:
        mark_dead_runs(destination, lease)
        yield lease


@contextmanager
def open_workspace(workspace: Workspace, job: Job | None = None) -> Iterator[Workspace]:
    """Create a working folder, and remove it at the end, unless that is an error and a shard was begun.

    Args:
        workspace: the folder.
        job: of a run whose work is worth adopting; the findings of a verification are not.
    """
    workspace.begin(job)
    ended = False
    try:
        yield workspace
        ended = True
    finally:
        if ended or not job or not workspace.begun_shards():
            close_workspace(workspace)


@contextmanager
def preview_destination() -> Iterator[str]:
    """Provide a temporary destination; it is removed if nothing was published to it."""
    folder = tempfile.mkdtemp(prefix="darkroom-preview-")
    try:
        yield folder
    finally:
        if not exists(open_destination(folder).store, MANIFEST):
            shutil.rmtree(folder, ignore_errors=True)
