"""Context managers of a run: the destination's lease, its workspace, a preview's temporary destination."""

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
    """Hold a destination's lease for a run, and mark the runs that died there as Crashed in Prefect.

    Raises:
        InUseError: another run holds the lease.
        DestinationError: the destination can't be written to, now or within the block.
    """
    with writing(destination.location), hold_lease(destination, run_id) as lease:
        mark_dead_runs(destination, lease)
        yield lease


@contextmanager
def open_workspace(workspace: Workspace, job: Job | None = None) -> Iterator[Workspace]:
    """Create a workspace, and remove it at the end; after an error, keep it if the next run can adopt its shards.

    Args:
        workspace: the workspace.
        job: the run's job; None for a verification, of which nothing is adopted.
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
    """Provide a temporary destination, and remove it if nothing was published to it."""
    folder = tempfile.mkdtemp(prefix="darkroom-preview-")
    try:
        yield folder
    finally:
        if not exists(open_destination(folder).store, MANIFEST):
            shutil.rmtree(folder, ignore_errors=True)
