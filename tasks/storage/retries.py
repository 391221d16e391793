"""Retries of storage operations, with exponential backoff and jitter."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from darkroom.tasks.storage.store_errors import StorageError

TRIES = 4
FIRST_BACKOFF_SECONDS = 0.2

P = ParamSpec("P")
T = TypeVar("T")


def with_retries(action: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a storage function up to `TRIES` times while its errors are transient; raise the last error."""
    for tried in range(1, TRIES):
        try:
            return action(*args, **kwargs)
        except StorageError as error:
            if not error.transient:
                raise
            back_off(tried)
    return action(*args, **kwargs)


def back_off(tried: int) -> None:
    """Wait before another try, twice as long after each; `tried` is the number of failed ones."""
    time.sleep(FIRST_BACKOFF_SECONDS * 2 ** (tried - 1) * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
