"""What a session sets for the flow that it runs holds where the flow's workers are."""

from __future__ import annotations

import pytest
from harness import Api
from prefect import State
from prefect.settings import PREFECT_API_SSL_CERT_FILE, PREFECT_API_URL, temporary_settings
from prefect.states import Completed

from darkroom.flows.cli.session import session
from darkroom.flows.runtime.local_server import ONE_CERTIFICATE
from darkroom.tasks.settings import Compute


@pytest.mark.parametrize(
    ("compute", "names_a_file_of_this_machine"),
    [
        (Compute(), True),
        (Compute(scheduler="tcp://elsewhere:8786"), False),
        (Compute(cluster_class="dask_kubernetes.operator.KubeCluster"), False),
    ],
)
def test_workers_elsewhere_get_no_paths_of_this_machine(
    compute: Compute, names_a_file_of_this_machine: bool, api: Api, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PREFECT_API_URL", api.url)
    seen = []

    def flow() -> State[None]:
        seen.append(PREFECT_API_SSL_CERT_FILE.value() == str(ONE_CERTIFICATE))
        return Completed()

    with temporary_settings({PREFECT_API_URL: api.url}), session(compute) as started:
        started.run(flow, "")

    assert seen == [names_a_file_of_this_machine]
