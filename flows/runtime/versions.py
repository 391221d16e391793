"""What a flow and its workers must have the same of: Python, Darkroom's code, and the libraries that both use."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import darkroom
from darkroom.tasks.settings import CODEC_LIBRARIES

if TYPE_CHECKING:
    import distributed

LIBRARIES = (*CODEC_LIBRARIES, "prefect", "prefect-dask", "dask", "distributed", "cloudpickle", "pydantic", "pyarrow")
"""The distribution packages that are compared: of codecs, and of what goes between flow and workers."""

SHOWN = 4

CODE = "Darkroom's code"


@cache
def own_versions() -> dict[str, str]:
    """Return the versions of this process, by what they are of."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"Python": python, CODE: _code_digest()} | {name: _version(name) for name in LIBRARIES}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _code_digest() -> str:
    """Return a hash of all modules: a checkout on a worker may have another commit of the same version."""
    digest = hashlib.sha256()
    for folder in ("flows", "tasks"):
        root = Path(next(iter(darkroom.__path__)), folder)
        for file in sorted(root.rglob("*.py")):
            digest.update(f"{file.relative_to(root)}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:8]


def find_differences(client: distributed.Client, addresses: Iterable[str]) -> dict[str, str]:
    """Return how versions of workers differ from this process's, as a clause by address; no entry where none does."""

    def ask() -> dict[str, str] | str:  # sent to workers as a whole, because they may lack Darkroom
        try:
            from darkroom.flows.runtime.versions import own_versions
        except ImportError as error:
            return str(error)
        return own_versions()

    answers: dict[str, Any] = client.run(ask, workers=list(addresses), on_error="return")
    return {address: found for address, answer in answers.items() if (found := _describe(answer))}


def _describe(answer: dict[str, str] | str | Exception) -> str:
    """Return how a worker's answer differs from this process's versions; empty if it doesn't."""
    if isinstance(answer, OSError):  # it is gone by now
        return ""
    if not isinstance(answer, dict):
        return f"can't import Darkroom ({answer})"
    own = own_versions()
    different = [
        _difference(name, answer.get(name, "missing"), own[name]) for name in own if answer.get(name) != own[name]
    ]
    more = [f"{len(different) - SHOWN:,} more"] if len(different) > SHOWN else []
    return f"has other versions than the flow: {', '.join(different[:SHOWN] + more)}" if different else ""


def _difference(name: str, there: str, here: str) -> str:
    return CODE if name == CODE else f"{name} {there} instead of {here}"
