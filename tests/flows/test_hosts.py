"""A run on several hosts with addresses of their own, of which one is cut off and one comes late."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from harness import DARKROOM, clean_environment, eventually, save

from benchmarks.server import prefect_server
from data.generate import photo
from tests.hosts import Host, Network, network
from tests.s3_server import S3Server, s3_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

IMAGES = 160
STORE = 2
"""The number of the store's address, which is taken away while the run goes on."""


@dataclass
class Site:
    """Hosts, and the servers that all of them reach."""

    network: Network
    s3: S3Server
    environment: dict[str, str]

    def python(self, host: Host, *command: str, **options: object) -> subprocess.Popen[str]:
        return host.start([sys.executable, "-m", *command], self.environment, **options)

    def start_worker(self, scheduler: str) -> Host:
        host = self.network.add_host()
        options = ["--host", host.address, "--nthreads", "1", "--no-dashboard", "--local-directory", "/tmp"]  # noqa: S108
        self.python(host, "distributed.cli.dask_worker", scheduler, *options)
        return host


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with network() as net:
        server_address, store_address = net.add_address(1), net.add_address(STORE)
        environment = clean_environment(tmp_path)
        with (
            s3_server(store_address) as s3,
            prefect_server(environment, tmp_path / "server.log", host=server_address) as server,
        ):
            yield Site(net, s3, environment | s3.environment | {"PREFECT_API_URL": server.api_url})


def test_a_run_survives_a_lost_host_a_late_host_and_a_lost_store(site: Site, tmp_path: Path):
    bucket = site.s3.make_bucket()
    for seed in range(4):
        save(tmp_path / f"{seed}.jpg", photo(2400, 1800, seed=seed), quality=90)
        data = (tmp_path / f"{seed}.jpg").read_bytes()
        for copy in range(IMAGES // 4):
            site.s3.plant(bucket, f"photos/{seed}/{copy:02d}.jpg", data)
    scheduler_host = site.network.add_host()
    options = ["--host", scheduler_host.address, "--port", "8786", "--no-dashboard"]
    site.python(scheduler_host, "distributed.cli.dask_scheduler", *options)
    scheduler = f"tcp://{scheduler_host.address}:8786"
    first, _ = site.start_worker(scheduler), site.start_worker(scheduler)

    run = site.network.add_host().start(
        [*DARKROOM, "run", f"s3://{bucket}/photos", f"s3://{bucket}/out", "--scheduler", scheduler],
        site.environment,
        stderr=subprocess.PIPE,
    )
    wait_for_parts(run, site, bucket, 1)
    first.cut_off()
    site.start_worker(scheduler)
    wait_for_parts(run, site, bucket, 2)
    site.network.remove_address(STORE)
    time.sleep(10)
    site.network.add_address(STORE)
    _, errors = run.communicate(timeout=400)

    assert run.returncode == 0, errors
    contents = site.s3.contents(bucket)
    rows = pq.read_table(io.BytesIO(contents["out/manifest.parquet"])).to_pylist()
    assert [row["status"] for row in rows] == ["ok"] * IMAGES
    assert len({row["source_path"] for row in rows}) == IMAGES
    outputs = {key: data for key, data in contents.items() if key.startswith("out/images/")}
    assert len(outputs) == IMAGES
    assert len(set(outputs.values())) == 4, "the hosts made different bytes of the same image"
    assert len({row["worker"].split("/")[1] for row in rows}) >= 2


def wait_for_parts(run: subprocess.Popen[str], site: Site, bucket: str, count: int) -> None:
    """Wait until a run has journalled `count` parts."""

    def has_parts() -> bool:
        assert run.poll() is None, run.communicate()
        return sum("/journal/" in key for key in site.s3.keys(bucket)) >= count

    eventually(has_parts, 120)
