"""Where trials have their sources and destinations: below a folder, or below a prefix of a bucket."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.s3_server import S3Server


@dataclass(frozen=True)
class Written:
    """The identity of one write of an output: writing it again changes it."""

    inode: int
    """0 in a bucket."""

    mtime_ns: int

    def age(self, now: float) -> float:
        """Return its age in seconds at a time since the epoch."""
        return now - self.mtime_ns / 1e9


@dataclass(frozen=True)
class Folder:
    """A local folder."""

    path: Path

    look_seconds = 0.05

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        return self.path.name

    def __truediv__(self, name: str) -> Folder:
        return Folder(self.path / name)

    def fill(self, source: Path) -> None:
        """Move the contents of a folder here."""
        source.rename(self.path)

    def local(self) -> Path:
        """Return a local folder with the current contents."""
        return self.path

    def outputs(self) -> dict[str, Written]:
        """Return the existing outputs, by name."""
        written = {}
        for path in (self.path / "images").rglob("*.jpg"):
            with suppress(FileNotFoundError):  # it is being replaced
                status = path.stat()
                written[str(path.relative_to(self.path))] = Written(status.st_ino, status.st_mtime_ns)
        return written

    def count_outputs(self) -> int:
        """Return the number of outputs; cheap enough to poll."""
        return sum(name.endswith(".jpg") for _, _, names in os.walk(self.path / "images") for name in names)

    def has_journal(self) -> bool:
        """Return whether a run that has not ended has a part of its journal there."""
        return any(self.path.glob(".darkroom/runs/*/journal/*.parquet"))

    def journalled(self) -> frozenset[str]:
        """Return the names of the outputs in the journals of runs that have not ended."""
        return _journalled(self.path)

    def unfinished(self) -> frozenset[str]:
        """Return the ids of flow runs that left a workspace, by which the next run knows that they died."""
        return frozenset(path.name for path in self.path.glob(".darkroom/runs/*"))


@dataclass(frozen=True)
class Prefix:
    """A prefix of a bucket. Its times are whole seconds: a second write within the same second goes unnoticed."""

    server: S3Server
    bucket: str
    path: str
    scratch: Path

    look_seconds = 0.5

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.path}"

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    def __truediv__(self, name: str) -> Prefix:
        return Prefix(self.server, self.bucket, f"{self.path}/{name}", self.scratch)

    def fill(self, source: Path) -> None:
        self.server.plant_folder(self.bucket, self.path, source)
        shutil.rmtree(source)

    def local(self, below: str = "") -> Path:
        """Return a new folder with copies of the objects below a prefix, or of all."""
        folder = Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir=self.scratch))
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda found: self._copy(found["Key"], folder), self._found(below)))
        return folder

    def _copy(self, key: str, folder: Path) -> None:
        file = folder / key.removeprefix(f"{self.path}/")
        file.parent.mkdir(parents=True, exist_ok=True)
        with suppress(self.server.client.exceptions.NoSuchKey):  # a run has just removed it
            file.write_bytes(self.server.client.get_object(Bucket=self.bucket, Key=key)["Body"].read())

    def _found(self, below: str) -> Iterator[dict[str, Any]]:
        pages = self.server.client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self.bucket, Prefix=f"{self.path}/{below}"):
            yield from page.get("Contents", [])

    def outputs(self) -> dict[str, Written]:
        found = {each["Key"].removeprefix(f"{self.path}/"): each["LastModified"] for each in self._found("images/")}
        return {name: Written(0, int(time.timestamp() * 1e9)) for name, time in found.items() if name.endswith(".jpg")}

    def count_outputs(self) -> int:
        return len(self.outputs())

    def has_journal(self) -> bool:
        return any("/journal/" in each["Key"] for each in self._found(".darkroom/runs/"))

    def journalled(self) -> frozenset[str]:
        return _journalled(self.local(".darkroom/runs/"))

    def unfinished(self) -> frozenset[str]:
        start = f"{self.path}/.darkroom/runs/"
        return frozenset(each["Key"].removeprefix(start).partition("/")[0] for each in self._found(".darkroom/runs/"))


Place = Folder | Prefix


def _journalled(folder: Path) -> frozenset[str]:
    """Return the names of the outputs in all journals below a destination's folder."""
    names: set[str] = set()
    for part in folder.glob(".darkroom/runs/*/journal/*.parquet"):
        with suppress(FileNotFoundError):  # the run has just published it
            names.update(name for name in pq.read_table(part)["file_name"].to_pylist() if name)
    return frozenset(names)
