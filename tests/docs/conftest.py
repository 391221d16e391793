"""Fixtures for the tests of the documentation."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import CHECKOUT, clean_environment, darkroom, save
from PIL import Image

from benchmarks.server import prefect_server
from data.generate import photo, write_sample
from tests.s3_server import S3Server

MAKE = """#!/bin/sh
# Run the checkout's Makefile in another folder, in which .venv and data/sample exist already.
exec {make} --makefile {makefile} --assume-old .venv/.installed --assume-old .venv/.locked "$@"
"""


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Yield the environment of a user who has activated .venv and runs one Prefect server."""
    home = tmp_path_factory.mktemp("home")
    kept = {name: value for name, value in clean_environment(home).items() if name != "PYTHONPATH"}
    programs = home / "bin"
    programs.mkdir()
    make = programs / "make"
    make.write_text(MAKE.format(make=shutil.which("make"), makefile=CHECKOUT / "Makefile"))
    make.chmod(0o755)
    kept |= {"PATH": f"{programs}:{Path(sys.executable).parent}:{kept['PATH']}", "HF_HUB_OFFLINE": "1"}
    with prefect_server(kept | {"PREFECT_SERVER_ANALYTICS_ENABLED": "false"}, home / "server.log") as server:
        yield kept | {"PREFECT_API_URL": server.api_url}


@pytest.fixture(scope="session")
def prepared(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a source, `photos`, and the destination of a run over it by default settings, `dataset`."""
    folder = tmp_path_factory.mktemp("prepared")
    source = folder / "photos"
    for number in range(40):
        label = "cats" if number % 2 == 0 else "dogs"
        save(source / label / f"{number // 2:03d}.jpg", photo(160, 120, seed=number), quality=90)
    save(source / "cats/c.png", photo(100, 50, seed=99))
    shutil.copy(source / "dogs/000.jpg", source / "dogs/again.jpg")
    (source / "cats/cut short.jpg").write_bytes((source / "cats/000.jpg").read_bytes()[:1500])
    (source / "dogs/page.jpg").write_text("<html>not found</html>")
    (source / "dogs/nowhere.jpg").symlink_to("gone.jpg")
    Image.new("RGB", (8, 8)).save(source / ".hidden.png")
    ended = darkroom("run", source, folder / "dataset", environment=environment)
    assert ended.code == 0, ended.err
    return folder


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a sample dataset with fewer and smaller images."""
    folder = tmp_path_factory.mktemp("sample") / "sample"
    write_sample(folder, 70, scale=0.3)
    return folder


@pytest.fixture
def cloud(prepared: Path, s3: S3Server) -> dict[str, str]:
    """Return an environment with two buckets: `my-photos`, which holds photos, and `my-datasets`, which is empty."""
    for bucket in ("my-photos", "my-datasets"):
        s3.client.create_bucket(Bucket=bucket)
    for path in sorted((prepared / "photos/cats").iterdir()):
        s3.plant("my-photos", f"2026/cats/{path.name}", path.read_bytes())
    return s3.environment


@pytest.fixture
def reader(prepared: Path, sample: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that makes a reader's checkout, `~/darkroom`, with `photos` and `dataset` in it and in `~`."""

    def begin(page: str) -> Path:
        checkout = tmp_path / "darkroom"
        (checkout / "data").mkdir(parents=True)
        (checkout / ".venv").symlink_to(sys.prefix)
        for name in ("deployments", "flows", "tasks"):
            (checkout / name).symlink_to(CHECKOUT / name)
        shutil.copytree(sample, checkout / "data/sample", symlinks=True)
        shutil.copytree(prepared / "photos", checkout / "photos", symlinks=True)
        if page != "README.md":  # its own commands make the dataset
            shutil.copytree(prepared / "dataset", checkout / "dataset")
        for name in ("photos", "dataset"):
            (tmp_path / name).symlink_to(checkout / name)
        return checkout

    return begin
