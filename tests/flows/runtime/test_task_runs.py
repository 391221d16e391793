"""Task runs on Dask workers know their flow run and its settings."""

import json
import subprocess
import sys


def test_a_task_run_has_the_settings_of_its_flow_run_and_belongs_to_it(api, tmp_path):
    script = tmp_path / "script.py"
    script.write_text("""
import json
from prefect import flow, runtime, tags, task
from prefect.settings import PREFECT_API_KEY, PREFECT_API_REQUEST_TIMEOUT, temporary_settings
from darkroom.flows.runtime.cluster import dask_runner
from darkroom.flows.runtime.task_runs import FlowContext, submit
from darkroom.tasks.settings import Compute

@task(task_run_name="look at {number}")
def look(number):
    return [number, runtime.flow_run.id, PREFECT_API_REQUEST_TIMEOUT.value(), PREFECT_API_KEY.value()]

@flow
def main():
    with dask_runner(Compute(workers=1)) as runner, temporary_settings(
        {PREFECT_API_REQUEST_TIMEOUT: 17.5, PREFECT_API_KEY: "secret"}
    ), tags("night"):
        context = FlowContext.current()
        found = [submit(runner.client, look, context, {"number": number}, None) for number in (1, 2)]
        states = [future.result() for future, _ in found]
        ids = [str(task_run_id) for _, task_run_id in found]
        print(json.dumps({"run": runtime.flow_run.id, "ids": ids, "results": [state.result() for state in states]}))
        failed = submit(runner.client, look, context, {"number": 3, "wrong": 0}, None)[0].result()
        assert failed.is_failed()

if __name__ == "__main__":
    main()
""")
    done = subprocess.run([sys.executable, script], env=api.environment, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["results"] == [[number, found["run"], 17.5, "secret"] for number in (1, 2)]
    runs = {run["id"]: run for run in api.task_runs(found["run"]) if run["id"] in found["ids"]}
    assert [runs[run_id]["name"] for run_id in found["ids"]] == ["look at 1", "look at 2"]
    assert all(run["state_type"] == "COMPLETED" and run["tags"] == ["night"] for run in runs.values())
