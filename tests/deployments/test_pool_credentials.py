"""Credentials of a bucket in Prefect blocks, which the work pool's environment names, as docs/buckets.md says."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from harness import save
from installation import Installation
from prefect.client.schemas.actions import WorkPoolUpdate

from darkroom.tasks.storage.object_store import open_object_store
from data.generate import photo
from tests.s3_server import S3Server

pytestmark = pytest.mark.slow

SAVE = "import sys; from prefect.blocks.system import Secret; Secret(value=sys.argv[2]).save(sys.argv[1])"


def test_flow_runs_have_the_keys_that_the_pool_takes_from_blocks(
    server: Installation, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    bucket = s3.make_bucket()
    save(tmp_path / "a.jpg", photo(160, 120, seed=0))
    s3.plant(bucket, "photos/a.jpg", (tmp_path / "a.jpg").read_bytes())
    for name in s3.environment:
        server.environment.pop(name, None)
    done = server.module("darkroom.deployments.deploy")
    assert done.code == 0, done.out + done.err
    with server.client() as client:
        template = client.read_work_pool("darkroom").base_job_template
        env = {name: f"{{{{ prefect.blocks.secret.{_block(name)} }}}}" for name in s3.environment}
        template["variables"]["properties"]["env"]["default"] = env
        client.update_work_pool("darkroom", WorkPoolUpdate(base_job_template=template))
    for name, value in s3.environment.items():
        command = [server.python, "-c", SAVE, _block(name), value]
        subprocess.run(command, env=server.environment, cwd=server.cwd, check=True, capture_output=True)

    with server.started("darkroom.deployments.flow_worker", until="started!"):
        run_id = server.run("preprocess/nightly", source=f"s3://{bucket}/photos", destination=f"s3://{bucket}/out")
        server.ended(run_id, "COMPLETED")

    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    assert open_object_store(f"s3://{bucket}/out").head("images/a.jpg").size
    with server.client() as client:
        stored = str(client.read_deployment_by_name("preprocess/nightly")) + str(client.read_flow_run(run_id))
        assert "AWS_SECRET_ACCESS_KEY" not in stored


def _block(name: str) -> str:
    return name.lower().replace("_", "-")
