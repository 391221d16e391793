"""Expect a storage error."""

import pytest

from darkroom.tasks.storage.store_errors import StorageError


def refusal(kind, action, *arguments, **options):
    """Return the error of this kind, and of no derived one, that an action raises."""
    with pytest.raises(StorageError) as caught:
        action(*arguments, **options)
    assert type(caught.value) is kind
    return caught.value
