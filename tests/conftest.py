import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

from tests.places import destination_at
from tests.s3_server import s3_server

# On a shared machine, any single example may take long.
settings.register_profile("darkroom", deadline=None)
settings.load_profile("darkroom")


# A shell makes commands in the background ignore SIGINT, and their child processes inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _no_fsync():
    """Replace `os.fsync` with nothing: no test cuts the power, so syncing would only cost time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _descriptor: None)
        yield


@pytest.fixture
def place(tmp_path):
    """Return an empty destination."""
    return destination_at(tmp_path / "dest")


@pytest.fixture
def source(tmp_path):
    """Return an empty folder for source images."""
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def _s3_server():
    with s3_server() as server:
        yield server


@pytest.fixture
def s3(_s3_server, monkeypatch):
    """Return a running S3 server, and set the environment so that `s3://` URLs lead to it."""
    for name, value in _s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return _s3_server


@pytest.fixture
def open_path():
    """Provide a temporary folder that every user may enter and write to, unlike pytest's `tmp_path`."""
    folder = Path(tempfile.mkdtemp(prefix="darkroom-test-"))
    folder.chmod(0o777)
    yield folder
    for path, _, _ in os.walk(folder):
        Path(path).chmod(0o700)
    shutil.rmtree(folder)
