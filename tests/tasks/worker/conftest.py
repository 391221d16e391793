from contextlib import closing

import pytest

from darkroom.tasks.worker.codec import Codec


@pytest.fixture
def codec(log):  # noqa: ARG001 - no codec process of an earlier test serves here
    with closing(Codec()) as codec:
        yield codec
