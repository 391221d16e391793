"""Which cluster a run gets, and the error if there is none."""

import subprocess
import sys

import pytest

from darkroom.flows.runtime.cluster import is_local, local_workers, worker_counter
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
    assert worker_counter(compute)() == workers
    assert is_local(compute) is (compute.cluster_class is None)


@pytest.mark.parametrize(
    ("scheduler", "message"), [("tcp://127.0.0.1:9", "can't be reached"), ("udp://127.0.0.1:9", "can't be used")]
)
def test_the_error_names_an_unusable_scheduler(scheduler, message):
    with pytest.raises(ClusterError, match=f"`scheduler={scheduler}` {message}"):
        worker_counter(Compute(scheduler=scheduler))


@pytest.mark.slow
def test_only_a_run_with_a_dashboard_serves_it_and_imports_bokeh(api, tmp_path):
    script = tmp_path / "script.py"
    script.write_text("""
import sys, urllib.request
from prefect import flow, runtime
from darkroom.flows.runtime.cluster import dask_runner
from darkroom.tasks.settings import Compute

def has_bokeh():
    return "bokeh" in sys.modules

@flow(log_prints=False)
def main():
    print(runtime.flow_run.id)
    for dashboard in (False, True):
        with dask_runner(Compute(workers=1, dashboard=dashboard)) as runner:
            client = runner.client
            found = [has_bokeh(), *client.run(has_bokeh).values()]
            page = client.dashboard_link and urllib.request.urlopen(client.dashboard_link).status
            print(found, page, flush=True)

if __name__ == "__main__":
    main()
""")
    done = subprocess.run([sys.executable, script], env=api.environment, capture_output=True, text=True, check=True)
    run_id, *found = done.stdout.splitlines()
    assert found == ["[False, False] ", "[True, False] 200"]
    [line] = [log["message"] for log in api.logs(run_id) if "dashboard" in log["message"]]
    assert line.startswith("Dask's dashboard is at http://127.0.0.1:")
