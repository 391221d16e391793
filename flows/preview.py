"""A preview of a run: its first images, in a temporary destination that stays for people to look at."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from darkroom.tasks.dataset.layout import Destination
from darkroom.tasks.reporting.contact_sheet import ContactSheets


@contextmanager
def preview_destination() -> Iterator[str]:
    """Provide a temporary destination; it is removed if nothing was published to it."""
    folder = Path(tempfile.mkdtemp(prefix="darkroom-preview-"))
    try:
        yield str(folder)
    finally:
        if not Destination(folder).manifest.exists():
            shutil.rmtree(folder, ignore_errors=True)


def write_contact_sheets(destination: str, sheets: ContactSheets) -> None:
    """Write a preview's contact sheets as JPEG files into its destination."""
    for name, sheet in (("contact-sheet.jpg", sheets.made), ("failures.jpg", sheets.failed)):
        if sheet:
            Path(destination, name).write_bytes(sheet.jpeg)
