"""What a worker process needs, imported once in the process that local workers are forked from."""

import distributed.nanny
import distributed.worker
import prefect.task_engine
import prefect_dask.client

import tasks.resize

__all__ = ["distributed", "prefect", "prefect_dask", "tasks"]
