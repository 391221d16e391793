"""A preview of a run: its first images, in a temporary destination that stays for people to look at."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from darkroom.tasks.dataset.layout import MANIFEST, Destination, open_destination
from darkroom.tasks.reporting.contact_sheet import ContactSheets
from darkroom.tasks.storage.store import exists


@contextmanager
def preview_destination() -> Iterator[str]:
    """Provide a temporary destination; it is removed if nothing was published to it."""
    folder = tempfile.mkdtemp(prefix="darkroom-preview-")
    try:
        yield folder
    finally:
        if not exists(open_destination(folder).store, MANIFEST):
            shutil.rmtree(folder, ignore_errors=True)


def write_contact_sheets(destination: Destination, sheets: ContactSheets) -> tuple[str, ...]:
    """Write a preview's contact sheets as JPEG files into its destination, and return where they are."""
    pictures = {"contact-sheet.jpg": sheets.made, "failures.jpg": sheets.failed}
    written = [name for name, sheet in pictures.items() if sheet and destination.store.put(name, sheet.jpeg)]
    return tuple(destination.store.where(name) for name in written)
