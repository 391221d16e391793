"""The settings of a session fit the machines on which its workers run."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from harness import Api, clean_environment, darkroom
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


def test_a_configuration_of_prefect_that_is_wrong_is_named(tmp_path: Path):
    (tmp_path / "prefect.toml").write_text("api = [broken")
    (tmp_path / "photos").mkdir()
    ended = darkroom("run", "photos", "out", environment=clean_environment(tmp_path, is_empty=True))
    assert ended.code == 2
    assert re.match(r"darkroom: Prefect's settings in prefect\.toml are wrong: .*invalid TOML.*\n$", ended.err)


def test_a_session_beside_a_running_server_uses_it(
    api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    for name, value in clean_environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_SERVER_API_PORT", str(urlsplit(api.url).port))

    with session(Compute(scheduler="tcp://elsewhere:8786")):
        assert os.environ["PREFECT_API_URL"] == api.url

    assert capsys.readouterr().err == f"darkroom: Using the Prefect server at {api.url}.\n"
    assert "PREFECT_API_URL" not in os.environ
