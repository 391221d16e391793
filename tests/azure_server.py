"""A real Azure Blob server on loopback: azurite, an npm package, where it is installed."""

import base64
import hashlib
import hmac
import re
import shutil
import subprocess
import urllib.request
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The account and key that every installation of azurite accepts, by its documentation."""


class AzureServer:
    """A running server, in which tests create containers."""

    def __init__(self, port: int):
        self.url = f"http://127.0.0.1:{port}/{ACCOUNT}"
        self.environment = {
            "AZURE_STORAGE_ENDPOINT": self.url,
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": KEY,
        }

    def make_container(self) -> str:
        """Create a container, which obstore can't, by a request signed with Azure's "Shared Key" scheme."""
        name = f"container-{uuid4()}"
        headers = {"x-ms-date": f"{datetime.now(UTC):%a, %d %b %Y %H:%M:%S GMT}", "x-ms-version": "2021-08-06"}
        named = "".join(f"{header}:{value}\n" for header, value in headers.items())
        signed = "PUT" + "\n" * 12 + named + f"/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
        digest = hmac.new(base64.b64decode(KEY), signed.encode(), hashlib.sha256).digest()
        headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}"
        request = urllib.request.Request(f"{self.url}/{name}?restype=container", method="PUT", headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 201
        return name


@contextmanager
def azure_server(folder: Path):
    """Run a server that works in a folder until the block ends; skip the test where azurite is not installed."""
    program = shutil.which("azurite-blob")
    if not program:
        pytest.skip("azurite-blob is not installed (npm install --global azurite)")
    options = ["--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent", "--blobPort", "0"]
    with subprocess.Popen([program, *options], stdout=subprocess.PIPE, text=True, cwd=folder) as process:
        try:
            found = (re.search(r"listens on http://127\.0\.0\.1:(\d+)", line) for line in process.stdout)
            yield AzureServer(next(int(match[1]) for match in found if match))
        finally:
            process.kill()
