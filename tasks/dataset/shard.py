"""A shard: the parameters of its task, and how the task reports progress."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress

from pydantic import BaseModel, Field

from darkroom.tasks.dataset.layout import WorkKind, Workspace, open_destination
from darkroom.tasks.wording import counted

PROGRESS_TOPIC = "darkroom-progress"
PROGRESS_SECONDS = 0.5
"""A task reports progress this often."""


class ShardRef(BaseModel):
    """The parameters of a shard's task: the run's plan, and the row group to process."""

    destination: str
    run_id: str
    kind: WorkKind = Field("runs", description="Kind of the workspace that has the plan.")
    number: int = Field(description="Row group of the plan, from 0.")
    of: int = Field(description="Number of shards of the run.")
    images: int
    attempt: int = Field(1, description="Which attempt at this shard; the first is 1.")

    @property
    def label(self) -> str:
        """A name for logs and the UI."""
        attempt = f" attempt {self.attempt}" if self.attempt > 1 else ""
        return f"shard {self.number + 1} of {self.of} ({counted(self.images, 'image')}){attempt}"

    @property
    def workspace(self) -> Workspace:
        """The run's workspace."""
        return open_destination(self.destination).workspace(self.run_id, self.kind)

    def new_attempt(self) -> str:
        """Return a unique name for this attempt, which Dask may run on several workers in turn."""
        return f"{self.attempt:03d}-{os.getpid()}-{time.time_ns()}"


def shard_refs(workspace: Workspace, images: Sequence[int]) -> list[ShardRef]:
    """Return the parameters of the tasks of a plan's shards, given each shard's number of images."""
    return [
        ShardRef(
            destination=workspace.destination.location,
            run_id=workspace.run_id,
            kind=workspace.kind,
            number=number,
            of=len(images),
            images=count,
        )
        for number, count in enumerate(images)
    ]


def report_progress(shard: ShardRef, done: int = 0, failed: int = 0) -> None:
    """Publish an attempt's progress as an event of `PROGRESS_TOPIC`; outside a Dask worker, do nothing.

    It has the run id, as all runs on a shared cluster receive it.
    """
    from distributed import get_worker

    message = {"run": shard.run_id, "shard": shard.number, "attempt": shard.attempt, "done": done, "failed": failed}
    with suppress(ValueError):
        get_worker().log_event(PROGRESS_TOPIC, message)
