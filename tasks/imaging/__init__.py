"""Probe, decode, orient, convert, resize, encode: image bytes in, image bytes and facts out.

JPEG takes the fast lane (`jpeg`), every other format the general one (`general`); from there on both share
the same geometry, filters and encoders. Nothing here reads or writes a file, or knows of Prefect or Dask.
"""

from tasks.imaging.codecs import configure_codecs
from tasks.imaging.facts import SourceFacts, Transformed
from tasks.imaging.inspect import Inspected, describe_bytes, inspect_image
from tasks.imaging.transform import probe, transform

__all__ = [
    "Inspected",
    "SourceFacts",
    "Transformed",
    "configure_codecs",
    "describe_bytes",
    "inspect_image",
    "probe",
    "transform",
]
