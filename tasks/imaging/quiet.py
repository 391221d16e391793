"""Silence for Python warnings that codecs raise about images, in any number of threads."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(slots=True)
class _Scope:
    lock: Lock = field(default_factory=Lock)
    depth: int = 0
    saved: warnings.catch_warnings[None] | None = None


_SCOPE = _Scope()


@contextmanager
def quiet() -> Iterator[None]:
    """Ignore Python warnings until the last thread has left.

    The filters of `warnings` belong to the process: were each thread to save and restore them on its own,
    an overlap would leave them silenced for good.
    """
    with _SCOPE.lock:
        _SCOPE.depth += 1
        if _SCOPE.depth == 1:
            _SCOPE.saved = warnings.catch_warnings()
            _SCOPE.saved.__enter__()
            warnings.simplefilter("ignore")
    try:
        yield
    finally:
        with _SCOPE.lock:
            _SCOPE.depth -= 1
            if _SCOPE.depth == 0 and _SCOPE.saved is not None:
                _SCOPE.saved.__exit__(None, None, None)
                _SCOPE.saved = None
