"""Print what a command waits for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from darkroom.flows.cli import terminal

NAME_SECONDS = 4.0
"""A wait is named after this long."""


@contextmanager
def named(describe: Callable[[], str]) -> Iterator[None]:
    """Print "Waiting for" and what `describe` returns, once, if the block takes longer than `NAME_SECONDS`."""
    timer = threading.Timer(NAME_SECONDS, lambda: terminal.print_at_once(f"darkroom: Waiting for {describe()}."))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
