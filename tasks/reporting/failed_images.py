"""Read the failed images of a destination's manifest."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from darkroom.tasks.dataset import sql
from darkroom.tasks.dataset.layout import MANIFEST, Destination
from darkroom.tasks.dataset.manifest import read_whole
from darkroom.tasks.reporting.figures import FAILED_COLUMNS, FailedImage

BATCH_ROWS = 10_000


def read_failed(destination: Destination, codes: Collection[str] = ()) -> Iterator[FailedImage]:
    """Yield the failed images of a destination with one of these error codes (empty: all), sorted by path.

    Raises:
        SettingsError: this user may not read the manifest.
        DarkroomError: the manifest is damaged, or was written by another version of Darkroom.
    """
    if read_whole(destination) is None:
        return
    wanted = f"AND error_code IN ({', '.join(map(sql.text, codes))})" if codes else ""
    with sql.connect_in_scratch() as (db, scratch):
        manifest = sql.parquet(destination.store.local(MANIFEST, scratch))
        query = f"SELECT {FAILED_COLUMNS} FROM {manifest} WHERE status = 'failed' {wanted} ORDER BY source_path"
        for batch in sql.stream(db, query, BATCH_ROWS):
            yield from (FailedImage(**row) for row in batch.to_pylist())
