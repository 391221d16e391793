"""Prepare image datasets: `from darkroom import preprocess, Recipe`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from darkroom.flows.partitions import preprocess_partitions
    from darkroom.flows.preprocess import preprocess
    from darkroom.flows.runtime.outcome import RunFailedError
    from darkroom.flows.verify import VerifyFailedError, verify
    from darkroom.tasks.settings import Compute, Recipe, Rules

__all__ = [
    "Compute",
    "Recipe",
    "Rules",
    "RunFailedError",
    "VerifyFailedError",
    "preprocess",
    "preprocess_partitions",
    "verify",
]

_MODULES = {
    "Compute": "tasks.settings",
    "Recipe": "tasks.settings",
    "Rules": "tasks.settings",
    "RunFailedError": "flows.runtime.outcome",
    "VerifyFailedError": "flows.verify",
    "preprocess": "flows.preprocess",
    "preprocess_partitions": "flows.partitions",
    "verify": "flows.verify",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: the flows import Prefect, which takes seconds."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
