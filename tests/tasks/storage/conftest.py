import pytest


@pytest.fixture
def bucket(s3):
    """Return the name of a new bucket."""
    return s3.make_bucket()
