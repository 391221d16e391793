"""Images through a worker: read ahead, transform one at a time, write behind."""

from __future__ import annotations

import hashlib
import os
import random
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from tasks.destination import Destination
from tasks.errors import RETRIED_NEXT_RUN, TRANSIENT, DarkroomError, ErrorCode, ImageError, as_image_error
from tasks.imaging import SourceFacts, Transformed
from tasks.journal import Row
from tasks.lanes import Make
from tasks.manifest import OUTPUT_KEPT
from tasks.moved import former_output
from tasks.naming import output_name
from tasks.readers import Readers
from tasks.recipe import Job
from tasks.storage import FileVersion, LocalFolder

READERS = 2
WRITERS = 2
BATCH_IMAGES = 8
BATCH_BYTES = 4 << 20
"""Images go through the pipeline in batches of so many images or source bytes: handing over each small one
by itself would cost a tenth of the time that it takes."""

BATCH_SECONDS = 1.0
"""What has taken so long is handed on: it would be lost with its worker."""

IN_FLIGHT_BATCHES = 4
"""Batches that are read ahead at most, and batches that are written behind."""

IN_FLIGHT_BYTES = 64 << 20
"""Source bytes that are read ahead at most, and output bytes that are written behind, beyond the batch that is
worked on; a larger image is alone."""

READ_TRIES = 4
FIRST_BACKOFF_SECONDS = 0.2

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True)
class _Image:
    """An image on its way through the pipeline."""

    planned: Row
    version: FileVersion | None = None
    data: bytes = b""
    sha256: str | None = None
    attempts: int = 0
    read_ms: float = 0.0
    made: Transformed | None = None
    error: ImageError | None = None

    @property
    def output_bytes(self) -> int:
        """Bytes of the output that waits to be written."""
        return len(self.made.data) if self.made else 0


class Pipeline:
    """Reads ahead and writes behind in threads while one image at a time goes through its lane.

    Args:
        job: what the run is to do.
        shard: the shard's number.
        make: the lane.
        wanted: says whether the run still is; asked before outputs are written, because by then another may write
            outputs of the same names.
    """

    def __init__(self, job: Job, shard: int, make: Make, wanted: Callable[[], bool]) -> None:
        self._job = job
        self._make = make
        self._wanted = wanted
        self._source = LocalFolder(os.fsencode(job.source), confined=not job.rules.follow_symlinks)
        destination = Destination(Path(job.destination))
        self._destination = LocalFolder(os.fsencode(destination.root))
        self._images = LocalFolder(os.fsencode(destination.images))
        self._common: Row = {
            "run_id": job.run_id,
            "shard": shard,
            "worker": worker_name(),
            "recipe_id": job.recipe_id,
        }

    def run(self, planned: list[Row]) -> Iterator[Row]:
        """Yield a finished row for every planned one, in the same order.

        Raises:
            DarkroomError: the run has ended meanwhile, or an image could not be tried.
        """
        behind: deque[tuple[int, Future[list[Row]]]] = deque()
        held = 0
        with (
            closing(Readers(READERS, self._job.rules.max_read_seconds)) as readers,
            ThreadPoolExecutor(WRITERS, "write") as writers,
        ):
            for made in self._transformed(readers, planned):
                size = sum(image.output_bytes for image in made)
                while behind and (
                    behind[0][1].done() or len(behind) >= IN_FLIGHT_BATCHES or held + size > IN_FLIGHT_BYTES
                ):
                    freed, future = behind.popleft()
                    yield from future.result()
                    held -= freed
                behind.append((size, writers.submit(self._finish_batch, made)))
                held += size
            while behind:
                yield from behind.popleft()[1].result()

    def _transformed(self, readers: Readers, planned: list[Row]) -> Iterator[list[_Image]]:
        """Yield batches of images that were worked on; one of large or slow outputs is handed on before it is full."""
        for batch in self._read_ahead(readers, planned):
            made: list[_Image] = []
            began = time.monotonic()
            for image in batch:
                self._transform(image)
                made.append(image)
                late = time.monotonic() - began >= BATCH_SECONDS
                if late or sum(done.output_bytes for done in made) >= BATCH_BYTES:
                    yield made
                    made, began = [], time.monotonic()
            if made:
                yield made

    def _read_ahead(self, readers: Readers, planned: list[Row]) -> Iterator[list[_Image]]:
        ahead: deque[tuple[list[Row], Future[list[_Image]]]] = deque()
        held = 0
        for batch in _batches(planned):
            size = _bytes_of(batch)
            while ahead and (len(ahead) >= IN_FLIGHT_BATCHES or held + size > IN_FLIGHT_BYTES):
                read, future = ahead.popleft()
                yield self._arrived(readers, read, future)
                held -= _bytes_of(read)
            ahead.append((batch, readers.submit(self._read_batch, batch)))
            held += size
        while ahead:
            yield self._arrived(readers, *ahead.popleft())

    def _arrived(self, readers: Readers, batch: list[Row], future: Future[list[_Image]]) -> list[_Image]:
        """Return a batch once it is read; if that does not end, try its images one by one."""
        try:
            return readers.result(future)
        except TimeoutError:
            return [self._read_alone(readers, planned) for planned in batch]

    def _read_alone(self, readers: Readers, planned: Row) -> _Image:
        try:
            return readers.result(readers.submit(self._read, planned))
        except TimeoutError:
            seconds = self._job.rules.max_read_seconds
            message = f"reading did not end within max_read_seconds = {seconds:g}"
            error = ImageError(ErrorCode.SOURCE_TIMEOUT, message)
            return _Image(planned, attempts=planned["attempts"] + 1, error=error)

    def _read_batch(self, planned: list[Row]) -> list[_Image]:
        return [self._read(row) for row in planned]

    def _read(self, planned: Row) -> _Image:
        image = _Image(planned, attempts=planned["attempts"] + 1)
        started = time.perf_counter()
        with _as_image_error(image, ErrorCode.SOURCE_FAILED):
            limit = self._job.rules.max_source_bytes
            image.data, image.version = with_retries(self._source.read, planned["source_path"], limit)
            image.sha256 = hashlib.sha256(image.data).hexdigest()
            if planned["former"]:
                image.made = former_output(planned["former"], image.sha256, self._destination)
        image.read_ms = _ms_since(started)
        return image

    def _transform(self, image: _Image) -> None:
        """Make an image's output, unless it could not be read, or there is one of the same bytes."""
        if image.error is None and image.made is None and image.sha256 != image.planned["known_sha256"]:
            with _as_image_error(image, ErrorCode.DECODE_CORRUPT):
                image.made = self._make(image.data)
        image.data = b""  # it would be held until its batch is written

    def _finish_batch(self, batch: list[_Image]) -> list[Row]:
        if not self._wanted():
            raise DarkroomError(f"Run {self._job.run_id} has ended; what it had finished, another has adopted.")
        return [self._finish(image) for image in batch]

    def _finish(self, image: _Image) -> Row:
        columns: Row = {}
        if image.made:
            with _as_image_error(image, ErrorCode.WRITE_FAILED):
                columns = self._write(image.planned["source_path"], image.made)
        if image.error:
            return self._failed_row(image, image.error)
        return self._row(image, **columns) if image.made else self._row(image, status="unchanged")

    def _write(self, source_path: str, made: Transformed) -> Row:
        file_name = output_name(source_path, self._job.recipe.format)
        started = time.perf_counter()
        with_retries(self._images.write, file_name, made.data)
        return {
            **_facts_columns(made.facts),
            "status": "ok",
            "file_name": f"images/{file_name}",
            "format": made.format,
            "width": made.width,
            "height": made.height,
            "channels": made.channels,
            "output_bytes": len(made.data),
            "output_sha256": hashlib.sha256(made.data).hexdigest(),
            "scale_x": made.scale_x,
            "scale_y": made.scale_y,
            "offset_x": made.offset_x,
            "offset_y": made.offset_y,
            "warnings": list(made.warnings),
            "decode_ms": made.decode_ms,
            "resize_ms": made.resize_ms,
            "encode_ms": made.encode_ms,
            "write_ms": _ms_since(started),
        }

    def _failed_row(self, image: _Image, error: ImageError) -> Row:
        return self._row(
            image,
            **(_facts_columns(error.facts) if error.facts else {}),
            status="failed",
            error_code=error.code.value,
            error_stage=error.code.stage,
            error_message=error.message,
            warnings=[OUTPUT_KEPT] if self._keeps_output(image, error) else [],
        )

    def _keeps_output(self, image: _Image, error: ImageError) -> bool:
        """Say whether an image keeps the output of its former bytes, until it is known what these make."""
        return error.code in RETRIED_NEXT_RUN and image.planned["has_output"]

    def _row(self, image: _Image, **columns: Any) -> Row:
        planned = image.planned
        version = image.version or FileVersion(planned["source_size"], planned["source_mtime"], planned["source_etag"])
        return {
            **self._common,
            "source_path": planned["source_path"],
            "source_size": version.size,
            "source_mtime": version.mtime,
            "source_etag": version.etag,
            "source_sha256": image.sha256,
            "attempts": image.attempts,
            "read_ms": image.read_ms,
            "processed_at": datetime.now(UTC),
            **columns,
        }


def _facts_columns(facts: SourceFacts) -> Row:
    return {
        "source_format": facts.format,
        "source_mode": facts.mode,
        "source_width": facts.width,
        "source_height": facts.height,
        "orientation": facts.orientation,
        "frames": facts.frames,
    }


def with_retries(action: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a storage function again while what it raises may pass, with exponential backoff and jitter."""
    for tried in range(1, READ_TRIES):
        try:
            return action(*args, **kwargs)
        except ImageError as error:
            if error.code not in TRANSIENT:
                raise
            time.sleep(FIRST_BACKOFF_SECONDS * 2 ** (tried - 1) * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
    return action(*args, **kwargs)


@contextmanager
def _as_image_error(image: _Image, code: ErrorCode) -> Iterator[None]:
    """Let what goes wrong with an image cost that image only, also what nobody has thought of."""
    try:
        yield
    except DarkroomError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a row and not the shard's end
        image.error = as_image_error(error, code)
    if image.error and image.made:
        image.error.facts = image.made.facts


def _batches(planned: list[Row]) -> Iterator[list[Row]]:
    """Yield rows in the same order, in batches that are worth handing over."""
    batch: list[Row] = []
    for row in planned:
        if batch and (len(batch) == BATCH_IMAGES or _bytes_of(batch) + _bytes_of([row]) > BATCH_BYTES):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _bytes_of(batch: list[Row]) -> int:
    return sum(row["source_size"] or 0 for row in batch)


def _ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1e3


@cache
def worker_name() -> str:
    """Return what the manifest calls this process: host and process number."""
    return f"{socket.gethostname()}/{os.getpid()}"
