"""Worker processes: their modules, imported once in the process that they are forked from, and their set-up."""

import signal

from darkroom.tasks.worker.codec_handle import start_server

# First, because it has imports of its own, which run beside those below. Workers forked from this process share it.
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
    """Ignore Ctrl-C, upon which the flow ends its workers in order; Dask calls this when a worker starts."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
