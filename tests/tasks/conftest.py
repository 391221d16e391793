import pytest

from darkroom.tasks.storage import retries
from darkroom.tasks.worker.codec import Codec, thread_codec
from darkroom.tasks.worker.codec_handle import end_server
from tests.poisoned import poisoned_environment


@pytest.fixture
def log(tmp_path, monkeypatch):
    """Install `tests/poison` in codec processes, and provide the path of its log."""
    path = tmp_path / "met"
    for name, value in poisoned_environment(path).items():
        monkeypatch.setenv(name, value)
    thread_codec().close()
    end_server()
    yield path
    thread_codec().close()
    end_server()


@pytest.fixture
def listing(tmp_path):
    """Return the path of a listing to be made."""
    return tmp_path / "listing.parquet"


@pytest.fixture
def delays(monkeypatch):
    """Return a list of the delays between tries, in seconds, which are recorded instead of waited for."""
    waited = []
    monkeypatch.setattr(retries.time, "sleep", waited.append)
    return waited


@pytest.fixture
def submitted(monkeypatch):
    """Return a list of what is submitted to codec processes: operations and sources."""
    seen = []
    submit = Codec.submit

    def note(codec, batch, orders):
        seen.extend((operation, bytes(batch.source(image)[1])) for image, operation in enumerate(batch.operations))
        submit(codec, batch, orders)

    monkeypatch.setattr(Codec, "submit", note)
    return seen


@pytest.fixture
def nine(source, place):
    """Return a destination of nine outputs, 0.jpg to 8.jpg."""
    from tests.tasks.verifying import nine_images  # imports Prefect, which few tests need

    return nine_images(source, place)
