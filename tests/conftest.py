import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

from tests.places import destination_at
from tests.s3_server import s3_server

# A machine that others use too may take long over any one example.
settings.register_profile("darkroom", deadline=None)
settings.load_profile("darkroom")


# A shell that starts tests in the background has them, and all that they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk():
    """No test pulls the plug, so that syncing would only cost time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _descriptor: None)
        yield


@pytest.fixture
def place(tmp_path):
    """An empty destination."""
    return destination_at(tmp_path / "dest")


@pytest.fixture
def source(tmp_path):
    """An empty folder for sources."""
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def _s3_server():
    with s3_server() as server:
        yield server


@pytest.fixture
def s3(_s3_server, monkeypatch):
    """A running S3 server, to which `s3://` leads."""
    for name, value in _s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return _s3_server


@pytest.fixture
def open_path():
    """A temporary folder that every user may enter and write to, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="darkroom-test-"))
    folder.chmod(0o777)
    yield folder
    for path, _, _ in os.walk(folder):
        Path(path).chmod(0o700)
    shutil.rmtree(folder)
