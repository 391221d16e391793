from contextlib import closing

import pytest

from darkroom.tasks.worker.codec import Codec


@pytest.fixture
def codec(log):  # noqa: ARG001 - ends the codec processes of earlier tests
    with closing(Codec()) as codec:
        yield codec
