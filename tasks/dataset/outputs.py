"""Compare outputs with the manifest."""

from __future__ import annotations

import hashlib

from darkroom.tasks.errors import SettingsError
from darkroom.tasks.storage.store import Store
from darkroom.tasks.storage.store_errors import Denied, StorageError


def has_bytes(store: Store, file_name: str, sha256: str | None) -> bool:
    """Return whether an output exists and has this hash; raise `SettingsError` if this user may not read it."""
    try:
        data = store.get(file_name).data
    except Denied as error:
        raise SettingsError(f"{error.at} can't be read. Grant this user permission to read all outputs.") from error
    except StorageError:
        return False
    return hashlib.sha256(data).hexdigest() == sha256
