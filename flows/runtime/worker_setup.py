"""Worker processes: what they need, imported once in the process that they are forked from, and their set-up."""

import signal

from darkroom.tasks.worker.codec_handle import start_server

# Beside the imports below: it has imports of its own. Workers that are forked from this process share it.
start_server()

import distributed.nanny
import distributed.worker
import prefect.task_engine
import prefect_dask.client

import darkroom.tasks.compare
import darkroom.tasks.resize

__all__ = ["darkroom", "dask_setup", "distributed", "prefect", "prefect_dask"]


def dask_setup(worker: distributed.worker.Worker) -> None:  # noqa: ARG001 - Dask's interface
    """Leave Ctrl-C to the flow, which ends its workers in order; Dask calls this as a worker starts."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
