"""The Compose file, the image and the systemd units, checked by their own tools."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import CHECKOUT
from installation import copied_into_image
from needs import needs

COMPOSE = CHECKOUT / "deployments/compose.yaml"
UNITS = sorted((CHECKOUT / "deployments/systemd").glob("*.service"))
SECRETS = {"DARKROOM_SOURCE": "/data/photos", "DARKROOM_DESTINATION": "/data/dataset", "POSTGRES_PASSWORD": "s3cret"}


def compose(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [needs("docker-compose", "docker-compose"), "--file", COMPOSE, "config"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DARKROOM", "POSTGRES"))}
    return subprocess.run(command, env=kept | environment, capture_output=True, text=True, check=False)


def test_compose_accepts_the_file():
    done = compose(SECRETS)

    assert done.returncode == 0, done.stderr
    services: dict[str, dict[str, Any]] = yaml.safe_load(done.stdout)["services"]
    assert set(services) == {"database", "server", "deploy", "worker", "scheduler", "dask-worker"}
    for name, service in services.items():
        image, _, tag = service["image"].partition(":")
        assert image
        assert tag[:1].isdigit(), f"{name}: {service['image']} is not pinned"
        assert service["restart"] != "no", name
        for port in service.get("ports", []):
            assert str(port).startswith("127.0.0.1:"), f"{name} listens on all interfaces at {port}"
    assert all("healthcheck" in services[name] for name in ("database", "server", "worker", "scheduler"))
    with_password = {name for name, service in services.items() if "s3cret" in str(service)}
    assert with_password == {"database", "server"}
    for name in ("deploy", "worker", "scheduler", "dask-worker"):
        source, destination = services[name]["volumes"]
        assert (source["target"], source.get("read_only")) == ("/data/photos", True), "the source is mounted read-only"
        assert destination["target"] == "/data/dataset"


@pytest.mark.parametrize("missing", sorted(SECRETS))
def test_compose_names_a_missing_variable(missing: str):
    done = compose({name: value for name, value in SECRETS.items() if name != missing})

    assert done.returncode != 0
    assert f"Set {missing} to" in done.stderr


def test_the_build_context_has_what_the_image_copies():
    allowed = (CHECKOUT / ".dockerignore").read_text().split()
    for path in copied_into_image():
        assert (CHECKOUT / path).exists(), path
        assert f"!{path}" in allowed, f"{path} is not sent to the builder"


def test_systemd_accepts_the_units(tmp_path: Path):
    verify = needs("systemd-analyze", "systemd")
    installed = [tmp_path / unit.name for unit in UNITS]
    for unit, copy in zip(UNITS, installed, strict=True):
        text = unit.read_text().replace("/srv/darkroom/.venv/bin/python", sys.executable)
        copy.write_text(text.replace("/srv/darkroom", str(CHECKOUT)))

    done = subprocess.run([verify, "verify", "--man=no", *installed], capture_output=True, text=True, check=False)

    assert [unit.stem for unit in UNITS] == ["darkroom-deploy", "darkroom-server", "darkroom-worker"]
    assert (done.returncode, done.stdout + done.stderr) == (0, ""), done.stderr
    for unit in installed:
        exposure = [verify, "security", "--offline=yes", "--threshold=40", unit]
        assert subprocess.run(exposure, capture_output=True, check=False).returncode == 0, f"{unit.name} is exposed"
