"""Images before and after their transform: read and hashed, their outputs written, their rows made."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from darkroom.tasks.dataset.journal import Row
from darkroom.tasks.dataset.layout import Destination
from darkroom.tasks.dataset.manifest import OUTPUT_KEPT
from darkroom.tasks.errors import RETRIED_NEXT_RUN, DarkroomError, ErrorCode, ImageError, as_image_error
from darkroom.tasks.imaging import SourceFacts, Transformed, TransformError
from darkroom.tasks.moved import FACTS_COLUMNS, OUTPUT_COLUMNS, former_output
from darkroom.tasks.settings import Job
from darkroom.tasks.storage.local import FileVersion, LocalFolder
from darkroom.tasks.storage.naming import output_name
from darkroom.tasks.worker.codec import Answer
from darkroom.tasks.worker.orders import Orders
from darkroom.tasks.worker.retries import with_retries
from darkroom.tasks.worker.shared_batch import Operation, SharedBatch


@dataclass(slots=True)
class Image:
    """An image on its way through a worker."""

    planned: Row
    attempts: int
    version: FileVersion | None = None
    sha256: str | None = None
    read_ms: float = 0.0
    source: tuple[int, int] = (0, 0)
    """Where its bytes start and end in its batch."""

    operation: Operation | None = None
    """What the codec process is to do with it, if anything."""

    answer: Answer | None = None
    """What came of it: a `Transformed`, or an `ImageError`."""


class Images:
    """Reads images and writes their outputs.

    Args:
        job: what the run is to do.
        shard: the shard's number.
        memory: bytes that the codec process may take for any image; None: as many as its size gives reason to.
        wanted: says whether the run still is; asked before outputs are written, because by then another may write
            outputs of the same names.
    """

    def __init__(self, job: Job, shard: int, memory: int | None, wanted: Callable[[], bool]) -> None:
        rules = job.rules
        limits = {"max_pixels": rules.max_pixels, "max_image_seconds": rules.max_image_seconds, "memory": memory}
        self.orders = Orders(recipe=job.recipe, **limits)
        self.max_read_seconds = rules.max_read_seconds
        self._job = job
        self._wanted = wanted
        self._source = LocalFolder(os.fsencode(job.source), confined=not rules.follow_symlinks)
        destination = Destination(Path(job.destination))
        self._destination = LocalFolder(os.fsencode(destination.root))
        self._images = LocalFolder(os.fsencode(destination.images))
        # A lossy format takes far less than a byte a pixel; PNG may take all four.
        self.output_bytes = job.recipe.width * job.recipe.height * (4 if job.recipe.format == "png" else 1)
        self._common: Row = {
            "run_id": job.run_id,
            "shard": shard,
            "worker": worker_name(),
            "recipe_id": job.recipe_id,
        }

    def read(self, planned: Row, batch: SharedBatch) -> Image:
        """Read and hash an image, which need not be made if there is an output of the same bytes already."""
        image = Image(planned, planned["attempts"] + 1)
        started = time.perf_counter()
        with _as_answer(image, ErrorCode.SOURCE_FAILED):
            limit = self._job.rules.max_source_bytes
            data, image.version = with_retries(self._source.read_into, planned["source_path"], batch.place, limit)
            image.source = batch.keep(len(data))
            image.sha256 = hashlib.sha256(data).hexdigest()
            if planned["former"]:
                image.answer = self._former(planned["former"], image.sha256, batch)
            if image.answer is None and image.sha256 != planned["known_sha256"]:
                image.operation = Operation.TRANSFORM
        image.read_ms = _ms_since(started)
        return image

    def _former(self, former: Row, sha256: str, batch: SharedBatch) -> Transformed | None:
        made = former_output(former, sha256, self._destination, batch.place)
        if made:
            batch.keep(len(made.data))
        return made

    def finish(self, images: list[Image]) -> list[Row]:
        """Write outputs, and return a row for each image.

        Raises:
            DarkroomError: the run has ended meanwhile.
        """
        if not self._wanted():
            raise DarkroomError(f"Run {self._job.run_id} has ended; what it had finished, another has adopted.")
        return [self._finish(image) for image in images]

    def _finish(self, image: Image) -> Row:
        made, columns = image.answer, {}
        if isinstance(made, Transformed):
            with _as_answer(image, ErrorCode.WRITE_FAILED):
                columns = self._write(image.planned["source_path"], made)
        if isinstance(image.answer, ImageError):
            facts = made.facts if isinstance(made, Transformed | TransformError) else None
            return self._failed_row(image, image.answer, facts)
        return self._row(image, **columns) if made else self._row(image, status="unchanged")

    def _write(self, source_path: str, made: Transformed) -> Row:
        file_name = output_name(source_path, self._job.recipe.format)
        started = time.perf_counter()
        with_retries(self._images.write, file_name, made.data)
        return {
            **_facts_columns(made.facts),
            "status": "ok",
            "file_name": f"images/{file_name}",
            "output_bytes": len(made.data),
            "output_sha256": hashlib.sha256(made.data).hexdigest(),
            **{name: getattr(made, name) for name in (*OUTPUT_COLUMNS, "decode_ms", "resize_ms", "encode_ms")},
            "write_ms": _ms_since(started),
        }

    def _failed_row(self, image: Image, error: ImageError, facts: SourceFacts | None) -> Row:
        return self._row(
            image,
            **(_facts_columns(facts) if facts else {}),
            status="failed",
            error_code=error.code.value,
            error_stage=error.code.stage,
            error_message=error.message,
            warnings=[OUTPUT_KEPT] if self._keeps_output(image, error) else [],
        )

    def _keeps_output(self, image: Image, error: ImageError) -> bool:
        """Say whether an image keeps the output of its former bytes, until it is known what these make."""
        return error.code in RETRIED_NEXT_RUN and image.planned["has_output"]

    def _row(self, image: Image, **columns: Any) -> Row:
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
    return {name: getattr(facts, name.removeprefix("source_")) for name in FACTS_COLUMNS}


@contextmanager
def _as_answer(image: Image, code: ErrorCode) -> Iterator[None]:
    """Turn any exception about an image into its answer, so that it costs that image only."""
    try:
        yield
    except DarkroomError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a row and not the shard's end
        image.answer = as_image_error(error, code)


def _ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1e3


@cache
def worker_name() -> str:
    """Return what the manifest calls this process: host and process number."""
    return f"{socket.gethostname()}/{os.getpid()}"
