"""Settings of the process while Pillow works, in any number of threads: silence, and our limit instead of its own."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(slots=True)
class _Scope:
    lock: Lock = field(default_factory=Lock)
    depth: int = 0
    warnings: warnings.catch_warnings[None] | None = None
    pixels: int | None = None


_SCOPE = _Scope()


@contextmanager
def quiet(max_pixels: int) -> Iterator[None]:
    """Ignore Python warnings, and let Pillow's readers allocate `max_pixels`, until the last thread has left.

    The filters of `warnings` and Pillow's limit belong to the process: were each thread to save and restore
    them on its own, an overlap would leave them changed for good. The largest limit of all threads counts; each
    checks its own by itself.
    """
    with _SCOPE.lock:
        _SCOPE.depth += 1
        if _SCOPE.depth == 1:
            _SCOPE.warnings = warnings.catch_warnings()
            _SCOPE.warnings.__enter__()
            warnings.simplefilter("ignore")
            _SCOPE.pixels, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, 0
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, max_pixels)
    try:
        yield
    finally:
        with _SCOPE.lock:
            _SCOPE.depth -= 1
            if _SCOPE.depth == 0 and _SCOPE.warnings is not None:
                _SCOPE.warnings.__exit__(None, None, None)
                _SCOPE.warnings, Image.MAX_IMAGE_PIXELS = None, _SCOPE.pixels
