"""Files that are whole and on the disk, or not there."""

from __future__ import annotations

import os
from pathlib import Path


def sync_file(path: Path) -> None:
    """Wait until a file's bytes are on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Wait until a folder's names are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, text: str) -> None:
    """Write a small file so that it is there whole, even after a power loss, or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    sync_file(temporary)
    os.replace(temporary, path)
