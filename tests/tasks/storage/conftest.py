import os

import pytest

from darkroom.tasks.storage.local import LocalFolder


@pytest.fixture
def bucket(s3):
    """Return the name of a new bucket."""
    return s3.make_bucket()


@pytest.fixture
def root(tmp_path):
    """Return the folder of `store`."""
    return tmp_path / "store"


@pytest.fixture
def store(root):
    """Return a store in a folder; the tests of other stores have fixtures of this name."""
    folder = LocalFolder(os.fsencode(root), outputs="images")
    folder.create()
    return folder
