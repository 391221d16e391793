"""A store in memory, with injected errors and latency."""

import io
import shutil
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from threading import Lock

import pyarrow as pa

from darkroom.tasks.storage.store import ABSENT, BATCH_ROWS, Object, Store, Version, list_schema
from darkroom.tasks.storage.store_errors import Conflict, NotFound, TooLarge


@dataclass
class Fault:
    operation: str
    path: str
    error: type
    times: int
    after: bool
    wait: int


class MemoryStore(Store):
    """Objects like a bucket's: no folders, no links, no files."""

    location = "memory://store"

    def __init__(self):
        self.objects = {}
        self.calls = []
        """Every operation so far, with its path."""

        self.latency = 0.0
        """Seconds that each operation takes."""

        self._faults = []
        self._versions = count()
        self._lock = Lock()

    def fail(self, operation, error, *, path="", times=1, after=False, wait=0):
        """Make the next `times` operations of a kind on a path raise an error; an empty kind or path stands for any.

        With `after`, the error is raised after the operation is done; the first `wait` operations succeed.
        """
        self._faults.append(Fault(operation, path, error, times, after, wait))

    @contextmanager
    def _request(self, operation, path):
        self.calls.append((operation, path))
        time.sleep(self.latency)
        for fault in self._faults:
            if fault.times and fault.operation in {"", operation} and fault.path in {"", path}:
                if fault.wait:
                    fault.wait -= 1
                    continue
                fault.times -= 1
                if fault.after:
                    yield
                raise fault.error(path, "made up", self.where(path))
        yield

    def _find(self, path):
        if path not in self.objects:
            raise NotFound(path, "no such object", self.where(path))
        return self.objects[path]

    def get_into(self, path, place, *, max_bytes=1 << 62):
        with self._request("get", path):
            data, version = self._find(path)
            if len(data) > max_bytes:
                raise TooLarge(path, f"the file has {len(data):,} bytes", self.where(path))
            view = place(len(data))[: len(data)]
            view[:] = data
        return Object(view, version)

    def open(self, path):
        with self._request("open", path):
            return io.BytesIO(self._find(path)[0])

    def local(self, path, scratch):
        with self._request("local", path):
            data, _ = self._find(path)
            file = Path(tempfile.mkdtemp(dir=scratch), path.rpartition("/")[2])
            file.write_bytes(data)
        return file

    def head(self, path):
        with self._request("head", path):
            return self._find(path)[1]

    def put(self, path, data, *, expected=None, durable=False):  # noqa: ARG002 - nothing here outlives the process
        version = Version(len(data), datetime.now(UTC), str(next(self._versions)))
        with self._request("put", path), self._lock:
            if expected is not None and expected != self.objects.get(path, (b"", ABSENT))[1]:
                raise Conflict(path, "another version", self.where(path))
            self.objects[path] = (bytes(data), version)
        return version

    def put_file(self, path, file):
        self.put(path, file.read_bytes(), durable=True)

    def move(self, path, to):
        with self._request("move", path):
            self.objects[to] = self._find(path)
            del self.objects[path]

    def delete(self, paths):
        for path in paths:
            with self._request("delete", path):
                self.objects.pop(path, None)

    def delete_below(self, prefix):
        self.delete(list(self._below(prefix)))

    def _below(self, prefix):
        return [path for path in self.objects if not prefix or path.startswith(f"{prefix}/")]

    def list(self, prefix="", *, skip=None, skipped=None):
        with self._request("list", prefix):
            found = []
            reasons = Counter()
            for path in self._below(prefix):
                parts = path.split("/")
                folders = ["/".join(parts[:depth]) + "/" for depth in range(1, len(parts))]
                reason = next(filter(None, map(skip, [*folders, path])), None) if skip else None
                if reason:
                    reasons[reason] += 1
                else:
                    found.append((path, self.objects[path][1]))
            if skipped:
                skipped.counts.update(reasons)
        for first in range(0, len(found), BATCH_ROWS):
            rows = [
                {"path": path, "size": version.size, "mtime": version.mtime, "ctime": None, "etag": version.etag}
                for path, version in found[first : first + BATCH_ROWS]
            ]
            yield pa.RecordBatch.from_pylist(rows, list_schema())

    def children(self, prefix):
        with self._request("children", prefix):
            start = f"{prefix.removesuffix('/')}/" if prefix else ""
            names = [path.removeprefix(start).partition("/") for path in self.objects if path.startswith(start)]
            yield from dict.fromkeys(name + slash for name, slash, _ in names)

    @contextmanager
    def scratch(self, prefix):  # noqa: ARG002 - no folder belongs to it
        folder = Path(tempfile.mkdtemp(prefix="darkroom-scratch-"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    def flush(self):
        with self._request("flush", ""):
            pass
