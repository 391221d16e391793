"""Stages are task runs of the flow run, in its own process; a run ends with its report, however it ended."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
from pathlib import Path

from harness import Api, eventually
from prefect import Flow
from prefect.states import Completed, Failed

from darkroom import Compute, Recipe, Rules, preprocess
from darkroom.flows.runtime.outcome import RunFailedError, report_of
from darkroom.tasks.reporting.run_report import RunReport

FLOW = """
import os, signal, sys, threading
from prefect import flow
from darkroom.flows.runtime.outcome import run_stage
from darkroom.tasks.errors import GuardError

def where():
    return os.getpid(), threading.get_ident()

def fail():
    raise GuardError("no images")

@flow(flow_run_name="stages")
def stages():
    assert run_stage("list {photos}", where) == where()
    try:
        run_stage("plan 3 images", fail)
    except GuardError as error:
        print("RAISED", error)
    assert "distributed" not in sys.modules
    run_stage("publish the manifest", signal.raise_signal, signal.SIGINT)

stages()
"""


def test_stages_are_task_runs_in_the_flow_and_show_how_they_ended(api: Api):
    command = [sys.executable, "-c", FLOW]
    done = subprocess.run(command, env=api.environment, capture_output=True, text=True, check=False)
    assert "RAISED no images" in done.stdout, done.stderr
    assert done.returncode == -signal.SIGINT
    assert "GuardError: no images\nTraceback" not in done.stderr
    assert "in fail" not in done.stderr, "no traceback of an error of Darkroom"
    [run] = api.post("flow_runs/filter", {"flow_runs": {"name": {"any_": ["stages"]}}})
    states = eventually(lambda: len(found := api.task_runs(run["id"])) == 3 and found, 30)
    assert [(state["name"], state["state_type"]) for state in states] == [
        ("list {photos}", "COMPLETED"),
        ("plan 3 images", "FAILED"),
        ("publish the manifest", "CANCELLED"),
    ]
    assert states[1]["state"]["message"].endswith("GuardError: no images")


def test_the_report_of_a_run_is_in_its_state_and_survives_pickling():
    failed = RunReport(source="/s", destination="/d", run_id="r", ok=3, problems=("Shard 1 is lost.",))
    again = pickle.loads(pickle.dumps(RunFailedError(failed)))  # noqa: S301 - pickled here
    assert (again.report, str(again)) == (failed, "Shard 1 is lost.")
    assert report_of(Failed(data=again)) == failed
    assert report_of(Completed(data=failed)) == failed
    assert report_of(Failed(data=ValueError())) is None


def test_parameters_are_stored_as_prefect_itself_would_store_them():
    values = {
        "source": "photos",
        "destination": Path("out"),
        "recipe": Recipe(width=64),
        "rules": Rules(limit=3),
        "compute": Compute(cluster_kwargs={"n_workers": 2}),
    }
    assert preprocess.serialize_parameters(values) == Flow.serialize_parameters(preprocess, values)
    assert preprocess.serialize_parameters({"source": object()}) == {"source": "<object>"}
