"""Findings: the words for what is not as the manifest says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa


class FindingKind(StrEnum):
    """What can be wrong, the worst first."""

    DAMAGED = "damaged"
    """The file is another one than was written."""

    INVALID_ROW = "invalid_row"
    """The manifest's row contradicts itself."""

    MISSING = "missing"
    """The manifest names a file that isn't there."""

    UNREADABLE = "unreadable"
    """The file could not be read just now: nothing is known of it."""

    FOREIGN = "foreign"
    """The manifest doesn't name the file."""


FINDINGS_SCHEMA = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("file_name", pa.string()),
        pa.field("source_path", pa.string()),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("present", pa.bool_(), nullable=False),
    ]
)
"""`file_name` as in the manifest; `present` says that a file of that name was there."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of `FINDINGS_SCHEMA`."""

    kind: FindingKind
    file_name: str | None
    source_path: str | None
    detail: str
    present: bool = True
