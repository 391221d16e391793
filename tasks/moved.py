"""Images that were moved within the source: their outputs are copied, not made again.

A new image of the same size and modification time as one that is gone is taken for that one, which decides
nothing yet: the worker reads it, and only if its bytes are those that the manifest knows is its output the old one.
"""

from __future__ import annotations

import hashlib
from typing import Any

import pyarrow as pa

from darkroom.tasks.dataset import sql
from darkroom.tasks.dataset.manifest import SCHEMA
from darkroom.tasks.imaging import SourceFacts, Transformed
from darkroom.tasks.storage.store import Place, Store
from darkroom.tasks.storage.store_errors import StorageError

FACTS_COLUMNS = ("source_format", "source_mode", "source_width", "source_height", "orientation", "frames")
OUTPUT_COLUMNS = ("format", "width", "height", "channels", "scale_x", "scale_y", "offset_x", "offset_y", "warnings")
_COLUMNS = ("source_sha256", "file_name", "output_sha256", *FACTS_COLUMNS, *OUTPUT_COLUMNS)

FORMER_TYPE = pa.struct([SCHEMA.field(name) for name in _COLUMNS])
"""What the manifest knows of the image that a new one is taken for."""

_FIND_SQL = """
    CREATE TEMP TABLE moved AS
    WITH gone AS (
        SELECT source_path, source_size, source_mtime, source_etag
        FROM manifest SEMI JOIN deleted USING (source_path)
        WHERE status = 'ok' AND recipe_id = {recipe_id} AND NOT {forced}
        QUALIFY count(*) OVER (PARTITION BY source_size, source_mtime, source_etag) = 1
    ),
    pairs AS (
        SELECT new.source_path, gone.source_path AS moved_from
        FROM compared AS new
        JOIN gone ON new.source_size = gone.source_size AND new.source_mtime = gone.source_mtime
            AND new.source_etag IS NOT DISTINCT FROM gone.source_etag
        WHERE new.reason = 'new'
    )
    SELECT pairs.*, {{{columns}}} AS former
    FROM pairs
    JOIN manifest AS m ON m.source_path = pairs.moved_from
    JOIN outputs AS o ON o.file_name = m.file_name AND o.size = m.output_bytes
"""


def find_moved(db: sql.Connection, *, recipe_id: str, forced: bool) -> None:
    """Make the table `moved` (source_path, moved_from, former) from `compared`, `deleted`, `manifest` and `outputs`."""
    columns = ", ".join(f"{name}: m.{name}" for name in _COLUMNS)
    db.execute(_FIND_SQL.format(recipe_id=sql.text(recipe_id), forced=forced, columns=columns))


def former_output(former: dict[str, Any], source_sha256: str, destination: Store, place: Place) -> Transformed | None:
    """Return the output that was made of the same bytes under another name.

    Args:
        former: a value of `FORMER_TYPE`.
        source_sha256: hash of the bytes that the image has now.
        destination: the destination's store.
        place: returns memory for it.

    Returns:
        None if the bytes are others, or the output is no longer what the manifest says.
    """
    if former["source_sha256"] != source_sha256:
        return None
    try:
        data = destination.get_into(former["file_name"], place).data
    except StorageError:
        return None
    if hashlib.sha256(data).hexdigest() != former["output_sha256"]:
        return None
    facts = SourceFacts(**{name.removeprefix("source_"): former[name] for name in FACTS_COLUMNS})
    output = {name: former[name] for name in OUTPUT_COLUMNS} | {"warnings": tuple(former["warnings"] or ())}
    return Transformed(data=data, facts=facts, decode_ms=0.0, resize_ms=0.0, encode_ms=0.0, **output)
