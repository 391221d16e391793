"""Decode, orient, convert, resize, encode: image bytes in, image bytes and facts out.

JPEG is decoded by `jpeg`, every other format by `general`; from there on both share the same geometry, filters and
encoders. Nothing here reads or writes a file, or knows of Prefect or Dask.

All of it runs in codec processes (`darkroom.tasks.worker.codec`). Workers and flows use only the records that are
exported here, and so never load a codec library: import functions from their own modules.
"""

from darkroom.tasks.imaging.facts import Inspected, SourceFacts, Transformed

__all__ = ["Inspected", "SourceFacts", "Transformed"]
