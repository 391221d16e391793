"""Copy the outputs of images that were moved within the source, instead of making them again.

A new image with the size and modification time of a gone one may be the same. The worker reads it, and copies the
former output only if the source bytes have the hash in the manifest.
"""

from __future__ import annotations

import hashlib
from dataclasses import fields

from darkroom.tasks.dataset import sql
from darkroom.tasks.dataset.rows import FormerOutput
from darkroom.tasks.imaging import SourceFacts, Transformed
from darkroom.tasks.storage.store import Place, Store
from darkroom.tasks.storage.store_errors import StorageError

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
    """Create the table `moved` (source_path, moved_from, former) from `compared`, `deleted`, `manifest`, `outputs`."""
    columns = ", ".join(f"{field.name}: m.{field.name}" for field in fields(FormerOutput))
    db.execute(_FIND_SQL.format(recipe_id=sql.text(recipe_id), forced=forced, columns=columns))


def former_output(former: FormerOutput, source_sha256: str, destination: Store, place: Place) -> Transformed | None:
    """Return the former output of a moved image; None if the source bytes or the output have changed.

    Args:
        former: the former output's columns in the manifest.
        source_sha256: hash of the image's present bytes.
        destination: the destination's store.
        place: returns memory for the output.
    """
    if former.source_sha256 != source_sha256:
        return None
    try:
        data = destination.get_into(former.file_name, place).data
    except StorageError:
        return None
    if hashlib.sha256(data).hexdigest() != former.output_sha256:
        return None
    return Transformed(
        data=data,
        facts=SourceFacts(
            format=former.source_format,
            mode=former.source_mode,
            width=former.source_width,
            height=former.source_height,
            orientation=former.orientation,
            frames=former.frames,
        ),
        format=former.format,
        width=former.width,
        height=former.height,
        channels=former.channels,
        scale_x=former.scale_x,
        scale_y=former.scale_y,
        offset_x=former.offset_x,
        offset_y=former.offset_y,
        warnings=tuple(former.warnings or ()),
        decode_ms=0.0,
        resize_ms=0.0,
        encode_ms=0.0,
    )
