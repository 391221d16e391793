"""Destinations in local folders, with the paths at which tests read and write files directly, not through the store."""

import os
from pathlib import Path

from darkroom.tasks.dataset.layout import Destination, Workspace, open_destination
from darkroom.tasks.storage.naming import text_to_path


class OnDisk(Destination):
    """A destination in a local folder."""

    @property
    def root(self) -> Path:
        return Path(self.location)

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.parquet"

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def findings(self) -> Path:
        return self.root / "findings"

    @property
    def work(self) -> Path:
        return self.root / ".darkroom"

    @property
    def quarantine(self) -> Path:
        return self.work / "quarantine"

    def path(self, path: str) -> Path:
        """Return the local path of an object."""
        return self.root / os.fsdecode(text_to_path(path))


def destination_at(folder: str | Path) -> OnDisk:
    """Return the destination in a folder; create the folder if it does not exist."""
    store = open_destination(str(folder)).store
    store.create()
    return OnDisk(store)


def disk(workspace: Workspace, name: str) -> Path:
    """Return the local path of a workspace's file or folder; `name` is its attribute of `Workspace`."""
    return Path(workspace.store.where(getattr(workspace, name)))
