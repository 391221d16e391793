"""Decode, orient, convert, resize, encode: image bytes in, image bytes and facts out.

`transform.transform` is the entry; `formats` has one module for each source format. Nothing here reads or writes files,
or uses Prefect or Dask.

All of it runs in codec processes (`darkroom.tasks.worker.codec`). Workers and flows import only the names exported
here, which load no codec library; import functions from their own modules.
"""

from darkroom.tasks.imaging.records import (
    TILE_SIDE,
    Inspected,
    Sheet,
    SourceFacts,
    Tile,
    Transformed,
    TransformError,
)

__all__ = ["TILE_SIDE", "Inspected", "Sheet", "SourceFacts", "Tile", "TransformError", "Transformed"]
