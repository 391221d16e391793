"""Which cluster a run gets, and what is said if there is none."""

import pytest

from darkroom.flows.runtime.cluster import count_workers, is_local, local_workers
from darkroom.tasks.errors import ClusterError
from darkroom.tasks.settings import Compute


@pytest.mark.parametrize(
    ("compute", "workers"),
    [
        (Compute(workers=3), 3),
        (Compute(), local_workers(Compute())),
        (Compute(cluster_class="x.Y", cluster_kwargs={"n_workers": 7}), 7),
        (Compute(cluster_class="x.Y", cluster_kwargs={"n_workers": "many"}), local_workers(Compute())),
    ],
)
def test_the_number_of_workers_is_known_before_the_cluster_starts(compute, workers):
    assert count_workers(compute) == workers
    assert is_local(compute) is (compute.cluster_class is None)


@pytest.mark.parametrize(
    ("scheduler", "message"), [("tcp://127.0.0.1:9", "can't be reached"), ("udp://127.0.0.1:9", "can't be used")]
)
def test_a_scheduler_that_is_not_there_is_named(scheduler, message):
    with pytest.raises(ClusterError, match=f"scheduler: {scheduler} {message}"):
        count_workers(Compute(scheduler=scheduler))
