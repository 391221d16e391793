"""The state of a destination, and the differences between two states, without those that any two runs have."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.harness import lasting

RUN_FILE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.parquet")


@dataclass(frozen=True)
class State:
    """The state of a destination that no run uses."""

    outputs: dict[str, str]
    """Hash of every file below images/, by name."""

    rows: dict[str, dict[str, Any]]
    paths: list[str]
    """Source paths in the manifest's order."""

    working: frozenset[str]
    """Files of the working state."""

    folders: frozenset[str]
    """All folders; those named after a run must be gone once it has ended."""

    runs: frozenset[str]
    """Files below runs/."""

    attempted: Counter[str]
    """Number of rows that each image has in the files below runs/, by source path."""

    @classmethod
    def of(cls, destination: Path) -> State:
        found = list(destination.rglob("*"))
        names = {str(path.relative_to(destination)): path for path in found if path.is_file()}
        rows = [lasting(row) for row in pq.read_table(destination / "manifest.parquet").to_pylist()]
        runs = frozenset(name.removeprefix("runs/") for name in names if name.startswith("runs/"))
        return cls(
            outputs={
                name: hashlib.sha256(path.read_bytes()).hexdigest()
                for name, path in names.items()
                if name.startswith("images/")
            },
            rows={row["source_path"]: row for row in rows},
            paths=[row["source_path"] for row in rows],
            working=frozenset(name for name in names if not name.startswith(("images/", "runs/"))),
            folders=frozenset(str(path.relative_to(destination)) for path in found if path.is_dir()),
            runs=runs,
            attempted=Counter(
                path
                for name in runs
                if RUN_FILE.fullmatch(name)
                for path in pq.read_table(destination / "runs" / name)["source_path"].to_pylist()
            ),
        )


def difference(found: State, expected: State) -> list[str]:
    """Return how a destination differs from that of an undisturbed run."""
    problems = []
    for what in ("outputs", "rows", "attempted"):
        one, other = getattr(found, what), getattr(expected, what)
        if wrong := sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name)):
            where = "images of runs/" if what == "attempted" else what
            problems.append(f"{len(wrong)} {where} differ, such as {wrong[0]}")
    if found.paths != expected.paths:
        problems.append("rows are in another order, or duplicated")
    # Names and number of files below runs/ may differ.
    strange = {f"runs/{name}" for name in found.runs if not RUN_FILE.fullmatch(name)}
    if wrong := sorted(strange | (found.working ^ expected.working) | (found.folders ^ expected.folders)):
        problems.append(f"left over or missing: {', '.join(wrong)}")
    return problems
