"""Compare Python, Darkroom's code and shared libraries of workers with those of the flow."""

from __future__ import annotations

import asyncio
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

LIBRARIES = (
    *(*CODEC_LIBRARIES, "numpy", "pyarrow", "pydantic"),
    *("prefect", "prefect-dask", "dask", "distributed", "cloudpickle"),
)
"""Distribution packages to compare: codecs, and libraries whose objects go between flow and workers."""

SHOWN = 4

ANSWER_SECONDS = 5.0
"""How long the run waits for the versions of new workers; it asks silent ones again."""

CODE = "Darkroom's code"

VERSIONS_REMEDY = "Give scheduler and workers what the flow has, as docs/clusters.md describes."


@cache
def own_versions() -> dict[str, str]:
    """Return this process's versions by component."""
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
    """Return how versions of workers differ from this process's, as a clause by address, or an empty text.

    A worker that does not answer within `ANSWER_SECONDS`, as one that is stopped or cut off, has no entry.
    """

    async def ask(address: str) -> dict[str, Any]:
        # By name: code itself can't be sent to another version of Python.
        answer = client.run(own_versions, workers=[address], on_error="return")
        try:
            found: dict[str, Any] = await asyncio.wait_for(answer, ANSWER_SECONDS)
        except OSError:  # includes TimeoutError
            return {}
        return found

    async def ask_all() -> list[dict[str, Any]]:
        return await asyncio.gather(*map(ask, addresses))

    answers = client.sync(ask_all)
    return {
        address: _describe(answer)
        for found in answers
        for address, answer in found.items()
        if not isinstance(answer, OSError)  # it can't be reached
    }


def describe_scheduler(client: distributed.Client) -> str:
    """Return why a scheduler can't take the flow's tasks, which it unpickles, as a clause; empty if it can."""
    try:
        return _describe(client.run_on_scheduler(own_versions))
    except ImportError as error:
        return _describe(error)


def _describe(answer: dict[str, str] | Exception) -> str:
    """Return how an answer differs from this process's versions; empty if it doesn't."""
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
