"""Findings: the words for what is not as the manifest says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import pyarrow as pa

from darkroom.tasks.dataset.rows import arrow_schema


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


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as the manifest says."""

    kind: Annotated[FindingKind, pa.string()]
    file_name: str | None
    """As in the manifest."""

    source_path: str | None
    detail: str
    present: bool = True
    """Whether there was a file of that name."""


FINDINGS_SCHEMA = arrow_schema(Finding)
