"""Fixtures of the tests of whole runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from harness import CHECKOUT, DARKROOM, Api, Started, clean_environment, save
from PIL import Image

from darkroom.flows.runtime.local_server import LocalServer
from data.generate import photo


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def api(prefect_home: Path) -> Iterator[Api]:
    """Provide one Prefect server for all tests of a session that run flows."""
    with running_api(prefect_home) as api:
        yield api


@contextmanager
def running_api(home: Path, **settings: str) -> Iterator[Api]:
    """Run a Prefect server with these settings until the block ends."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("PREFECT")]:
            patch.delenv(name)
        for name, value in (clean_environment(home) | settings).items():
            patch.setenv(name, value)
        server = LocalServer()
    server.wait_until_healthy()
    yield Api(server.api_url, home)
    server.stop()


@pytest.fixture
def start() -> Iterator[Any]:
    """Start the command; kill it and its children when the test ends."""
    started: list[Started] = []

    def begin(*arguments: str | Path, environment: dict[str, str], code: str | None = None) -> Started:
        command = [sys.executable, "-c", code] if code else DARKROOM
        process = subprocess.Popen(
            [*command, *map(str, arguments)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd=environment["HOME"],
        )
        started.append(Started(process))
        return started[-1]

    yield begin
    for item in started:
        if item.process.poll() is None:
            os.killpg(item.process.pid, signal.SIGKILL)
        with item.process:  # which closes its pipes and waits for its end
            pass


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a small source: JPEG, PNG and WebP, one turned, two broken, one that is no image."""
    source = tmp_path / "photos"
    save(source / "a.jpg", photo(320, 240, seed=1), quality=92)
    exif = Image.Exif()
    exif[0x0112] = 6
    save(source / "turned/b.jpg", photo(300, 200, seed=2), quality=92, exif=exif)
    save(source / "c.png", photo(256, 128, seed=3))
    save(source / "sub folder/ünï 'q\" %20\n🐈.webp", photo(200, 200, seed=4), quality=90)
    for number in range(20):
        save(source / f"many/{number:03d}.jpg", photo(160, 120, seed=100 + number), quality=90)
    (source / "broken.jpg").write_bytes((source / "a.jpg").read_bytes()[:3000])
    (source / "page.jpg").write_text("<html>not found</html>")
    (source / "notes.txt").write_text("no image")
    (source / ".hidden.jpg").write_bytes(b"x")
    return source


@pytest.fixture(scope="session")
def large_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a source that keeps two processes busy for some seconds: 200 links to a few large photos."""
    source = tmp_path_factory.mktemp("large")
    for seed in range(4):
        save(source / f"{seed}-0.jpg", photo(4000, 3000, seed=seed), quality=90)
        for copy in range(1, 50):
            os.link(source / f"{seed}-0.jpg", source / f"{seed}-{copy}.jpg")
    return source


@pytest.fixture
def shared_corpus() -> Path:
    """Return the project's development corpus; skip the test if it does not exist."""
    corpus = CHECKOUT.parent / "shared/corpus"
    if not corpus.is_dir():
        pytest.skip("the development corpus is not beside this checkout")
    return corpus
