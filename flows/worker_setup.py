"""Set up worker processes; import their modules once, in the process that they are forked from."""

import signal

from darkroom.tasks.worker.codec_handle import start_server

# First, so that its imports run in parallel with those below. Workers forked from this process share the server.
start_server()

import distributed.nanny
import distributed.worker
import prefect.task_engine
import prefect_dask.client

import darkroom.flows.preprocess  # task runs bring their flow run's context, and that names the flow
import darkroom.flows.verify
from darkroom.flows.runtime.arrow import hide_pandas

hide_pandas()

__all__ = ["darkroom", "dask_setup", "distributed", "prefect", "prefect_dask"]


def dask_setup(worker: distributed.worker.Worker) -> None:  # noqa: ARG001 - Dask's interface
    """Ignore Ctrl-C: the flow stops its workers itself. Dask calls this when a worker starts."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
