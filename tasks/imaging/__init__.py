"""Decode, orient, convert, resize, encode: image bytes in, image bytes and facts out.

`transform` is the entry. Everything that is specific to a format of sources is in that format's module in `formats`.
Nothing here reads or writes a file, or uses Prefect or Dask.

All of it runs in codec processes (`darkroom.tasks.worker.codec`). Workers and flows use only the values that are
exported here, and so never load a codec library: import functions from their own modules.
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
