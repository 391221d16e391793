"""SQL for rows whose paths lie below folders that could not be listed, of which there may be thousands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from darkroom.tasks.dataset.sql import Connection


class Below(NamedTuple):
    """Pieces of a query: what to join to the rows, and the condition for those below one of the folders."""

    join: str
    condition: str


def below(db: Connection, column: str, folders: Iterable[str]) -> Below:
    """Return the pieces of a query that find the rows whose path lies below one of the folders.

    Its cost grows with the rows and the folders, not with their product: of prefixes none of which begins with another,
    only the last one that doesn't come after a path can be the beginning of that path.

    Args:
        db: where the folders are registered.
        column: the column with the path.
        folders: paths without a `/` at the end; an empty one is above everything.
    """
    import pyarrow as pa

    prefixes = _outermost(f"{folder}/" if folder else "" for folder in folders)
    if not prefixes:
        return Below("", "false")
    db.register("unlisted_prefixes", pa.table({"prefix": prefixes}))
    return Below(
        f"ASOF LEFT JOIN unlisted_prefixes ON {column} >= unlisted_prefixes.prefix",
        f"coalesce(starts_with({column}, unlisted_prefixes.prefix), false)",
    )


def _outermost(prefixes: Iterable[str]) -> list[str]:
    """Return the prefixes that don't begin with another one, in order."""
    kept: list[str] = []
    for prefix in sorted(set(prefixes)):
        if not kept or not prefix.startswith(kept[-1]):
            kept.append(prefix)
    return kept
