"""SQL for the rows below folders that could not be listed, of which there may be thousands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from darkroom.tasks.dataset.sql import Connection


class Below(NamedTuple):
    """Parts of a query: a join for its FROM clause, and the condition for rows below one of the folders."""

    join: str
    condition: str


def below(db: Connection, column: str, folders: Iterable[str]) -> Below:
    """Return the parts of a query that finds the rows whose path lies below one of the folders.

    Its cost grows with the sum of rows and folders, not with their product: if no prefix begins with another one, only
    the last prefix that does not sort after a path can be a prefix of that path.

    Args:
        db: the database in which to register the folders.
        column: the column with the path.
        folders: paths without a `/` at the end; an empty one is above everything.
    """
    import pyarrow as pa

    prefixes = outermost(f"{folder}/" if folder else "" for folder in folders)
    if not prefixes:
        return Below("", "false")
    db.register("unlisted_prefixes", pa.table({"prefix": prefixes}))
    return Below(
        f"ASOF LEFT JOIN unlisted_prefixes ON {column} >= unlisted_prefixes.prefix",
        f"coalesce(starts_with({column}, unlisted_prefixes.prefix), false)",
    )


def outermost(prefixes: Iterable[str]) -> list[str]:
    """Return the prefixes that don't begin with another one, sorted."""
    kept: list[str] = []
    for prefix in sorted(set(prefixes)):
        if not kept or not prefix.startswith(kept[-1]):
            kept.append(prefix)
    return kept
