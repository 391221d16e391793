"""Ranges of source paths, small enough to sort each one's wide rows in memory."""

from __future__ import annotations

from collections.abc import Iterator

from darkroom.tasks.dataset import sql

ROW_GROUP_ROWS = 122_880

SAMPLED_PATHS = 1_000
"""Size of the sample for each range."""


def path_ranges(db: sql.Connection, paths: str) -> Iterator[str]:
    """Yield SQL conditions that cut rows into ranges of about a row group each, in ascending order.

    Args:
        db: has the rows.
        paths: SQL that selects their source paths; that of a wide row as often as so many usual rows take its memory.
    """
    cuts = _cuts(db, paths)
    for first, end in zip([None, *cuts], [*cuts, None], strict=True):
        bounds = [f"source_path >= {sql.text(first)}"] if first is not None else []
        bounds += [f"source_path < {sql.text(end)}"] if end is not None else []
        yield " AND ".join(bounds) or "true"


def _cuts(db: sql.Connection, paths: str) -> list[str]:
    """Return the bounds of the ranges, estimated from a sample."""
    [(rows,)] = db.execute(f"SELECT count(*) FROM ({paths})").fetchall()
    ranges = -(-rows // ROW_GROUP_ROWS)
    if ranges < 2:
        return []
    sampled = db.execute(
        f"SELECT source_path FROM ({paths}) USING SAMPLE reservoir({ranges * SAMPLED_PATHS} ROWS) ORDER BY 1"
    ).fetchall()
    return list(dict.fromkeys(sampled[number * len(sampled) // ranges][0] for number in range(1, ranges)))
