"""An API with a password, a Dask cluster with TLS, and secrets that must not be shown or stored."""

from __future__ import annotations

import base64
import json
import os
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from harness import Api, clean_environment, darkroom, manifest_rows, run_id_of, running_cluster

from darkroom.flows.runtime.local_server import LocalServer
from tests.contents import files

SECRET = "admin:open-sesame-4711"  # noqa: S105


@pytest.fixture(scope="module")
def guarded_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Run a Prefect server that needs a password; provide its users' environment, without the password."""
    home = tmp_path_factory.mktemp("guarded")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("PREFECT")]:
            patch.delenv(name)
        for name, value in (clean_environment(home) | {"PREFECT_SERVER_API_AUTH_STRING": SECRET}).items():
            patch.setenv(name, value)
        server = LocalServer()
    server.wait_until_healthy()
    yield clean_environment(home) | {"PREFECT_API_URL": server.api_url}
    server.stop()


def ask(url: str, path: str, body: dict[str, Any]) -> str:
    headers = {
        "Content-Type": "application/json",
        "Authorization": f"Basic {base64.b64encode(SECRET.encode()).decode()}",
    }
    request = urllib.request.Request(f"{url}/{path}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        return response.read().decode()


def test_a_guarded_api_is_used_and_its_password_is_found_nowhere(
    guarded_api: dict[str, str], folder: Path, tmp_path: Path
):
    out = tmp_path / "out"
    environment = guarded_api | {"PREFECT_API_AUTH_STRING": SECRET}

    ended = darkroom("run", folder, out, "--max-failure-ratio", "1", "--verbose", environment=environment)

    assert ended.code == 0, ended.err
    url = guarded_api["PREFECT_API_URL"]
    this_run = {"flow_runs": {"id": {"any_": [run_id_of(out)]}}}
    texts = [
        ended.out,
        ended.err,
        ask(url, "flow_runs/filter", this_run),
        ask(url, "task_runs/filter", this_run),
        ask(url, "artifacts/filter", this_run),
        ask(url, "logs/filter", {"logs": {"flow_run_id": {"any_": [run_id_of(out)]}}}),
        *(data.decode(errors="replace") for data in files(out).values()),
    ]
    password = SECRET.partition(":")[2]
    assert "24 made" in "".join(texts)
    for secret in (SECRET, password, base64.b64encode(SECRET.encode()).decode()):
        assert not any(secret in text for text in texts)


@pytest.mark.parametrize("password", [None, "admin:wrong-1234"])
def test_without_the_password_the_message_names_the_setting(
    guarded_api: dict[str, str], folder: Path, tmp_path: Path, password: str | None
):
    environment = guarded_api | ({"PREFECT_API_AUTH_STRING": password} if password else {})

    ended = darkroom("run", folder, tmp_path / "out", environment=environment)

    assert ended.code == 2
    assert "PREFECT_API_AUTH_STRING" in ended.err
    assert "Traceback" not in ended.err
    assert not password or password not in ended.err


@pytest.mark.parametrize("port", ["9", "{port}"])
def test_a_password_in_the_address_is_not_shown(api: Api, folder: Path, tmp_path: Path, port: str):
    port = port.format(port=api.url.rsplit(":", 1)[1].partition("/")[0])
    address = f"http://admin:s3cret@127.0.0.1:{port}/nowhere"

    ended = darkroom("run", folder, tmp_path / "out", environment=api.environment | {"PREFECT_API_URL": address})

    assert ended.code == 2
    assert f"http://…@127.0.0.1:{port}/nowhere" in ended.err
    assert "s3cret" not in ended.err


def certificate(folder: Path) -> tuple[Path, Path]:
    """Write a key and a self-signed certificate, which both sides of Dask's connections use."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "darkroom test")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    key_file, certificate_file = folder / "key.pem", folder / "certificate.pem"
    key_file.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    certificate_file.write_bytes(signed.public_bytes(pem))
    return key_file, certificate_file


@pytest.fixture
def tls_cluster(tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Run a Dask cluster that accepts only TLS; provide its address and the Dask settings of its clients."""
    key, certificate_file = certificate(tmp_path)
    settings = {"DASK_DISTRIBUTED__COMM__TLS__CA_FILE": str(certificate_file)}
    for role in ("CLIENT", "WORKER", "SCHEDULER"):
        settings[f"DASK_DISTRIBUTED__COMM__TLS__{role}__CERT"] = str(certificate_file)
        settings[f"DASK_DISTRIBUTED__COMM__TLS__{role}__KEY"] = str(key)
    with running_cluster(tmp_path, clean_environment(tmp_path) | settings, protocol="tls") as address:
        yield address, settings


@pytest.mark.slow
def test_a_cluster_that_speaks_tls(
    guarded_api: dict[str, str], tls_cluster: tuple[str, dict[str, str]], folder: Path, tmp_path: Path
):
    address, settings = tls_cluster
    assert address.startswith("tls://127.0.0.1:")
    out = tmp_path / "out"
    environment = guarded_api | {"PREFECT_API_AUTH_STRING": SECRET}
    options = ("--scheduler", address, "--max-failure-ratio", "1")

    stranger = darkroom("run", folder, out, *options, environment=environment)
    known = darkroom("run", folder, out, *options, environment=environment | settings)

    assert stranger.code in (1, 2)
    assert "Traceback" not in stranger.err
    assert address in stranger.err
    assert known.code == 0, known.err
    assert len(manifest_rows(out)) == 26
