"""Read and hash an image before its transform; write its output and fill its row afterwards."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache

from darkroom.tasks.dataset.claim import Claim
from darkroom.tasks.dataset.layout import open_destination, output_paths
from darkroom.tasks.dataset.manifest import OUTPUT_KEPT
from darkroom.tasks.dataset.moved import former_output
from darkroom.tasks.dataset.outputs import has_bytes
from darkroom.tasks.dataset.rows import ManifestRow, PlannedImage
from darkroom.tasks.errors import RETRIED_NEXT_RUN, DarkroomError, ErrorCode, ImageError, SettingsError, as_image_error
from darkroom.tasks.imaging import SourceFacts, Transformed, TransformError
from darkroom.tasks.settings import Job
from darkroom.tasks.storage.locations import open_source
from darkroom.tasks.storage.retries import with_retries
from darkroom.tasks.storage.store import Object, Place
from darkroom.tasks.storage.store_errors import (
    Conflict,
    Denied,
    NoSpace,
    NotFound,
    PathTooLong,
    StorageError,
    Throttled,
    TimedOut,
    TooLarge,
)
from darkroom.tasks.worker.orders import Answer, Orders
from darkroom.tasks.worker.shared_batch import Operation, Room, SharedBatch

_READ_CODES: dict[type[StorageError], ErrorCode] = {
    NotFound: ErrorCode.SOURCE_NOT_FOUND,
    Denied: ErrorCode.SOURCE_DENIED,
    TimedOut: ErrorCode.SOURCE_TIMEOUT,
    Throttled: ErrorCode.SOURCE_THROTTLED,
}
_WRITE_CODES: dict[type[StorageError], ErrorCode] = {
    NoSpace: ErrorCode.WRITE_NO_SPACE,
    Denied: ErrorCode.WRITE_DENIED,
    PathTooLong: ErrorCode.WRITE_PATH_TOO_LONG,
}


@dataclass(slots=True)
class Image:
    """An image while a worker processes it."""

    planned: PlannedImage
    row: ManifestRow
    """Its row, filled step by step; its status is `unchanged` until there is an answer."""

    source: tuple[int, int] = (0, 0)
    """Start and end of its bytes in its batch."""

    operation: Operation | None = None
    """The codec process's operation for it; None if it needs none."""

    answer: Answer | None = None
    """A `Transformed` with its output, or an `ImageError`; None before, and for an unchanged image."""


class Images:
    """Reads the images of a shard and writes their outputs.

    Args:
        job: the run's settings.
        claim: on the shard; checked before outputs are written, because another attempt or run that takes it over may
            write outputs of the same names.
        memory: upper limit in bytes on the codec process's memory for an image; None: only the image's size limits it.
    """

    def __init__(self, job: Job, claim: Claim, memory: int | None) -> None:
        rules = job.rules
        limits = {"max_pixels": rules.max_pixels, "max_image_seconds": rules.max_image_seconds, "memory": memory}
        self.orders = Orders(recipe=job.recipe, **limits)
        self.max_read_seconds = rules.max_read_seconds
        self._job = job
        self._claim = claim
        self._source, self._output_path = open_source(job.source, rules), output_paths(job)
        self._destination = open_destination(job.destination).store
        self.read_apart, self.written_apart = self._source.is_remote, self._destination.is_remote
        # An estimate: a lossy output has less than one byte per pixel, a PNG up to four.
        self.output_bytes = job.recipe.width * job.recipe.height * (4 if job.recipe.format == "png" else 1)

    def read(self, planned: PlannedImage, batch: SharedBatch) -> Image:
        """Read an image into `batch` and hash it; set its operation unless there already is an output of these bytes.

        An exception becomes the image's answer.
        """
        image = self._new(self._without_suspects(planned))
        planned, row, started = image.planned, image.row, time.perf_counter()
        with _as_answer(image, ErrorCode.SOURCE_FAILED):
            room = Room(batch)
            found = self._get(planned.source_path, room)
            data, version = found.data, found.version
            image.source = room.start, room.start + len(data)
            row.source_size, row.source_mtime, row.source_ctime = version.size, version.mtime, version.ctime
            row.source_etag = version.etag
            row.source_sha256 = hashlib.sha256(data).hexdigest()
            if planned.former:
                image.answer = former_output(planned.former, row.source_sha256, self._destination, Room(batch))
            if image.answer is None and row.source_sha256 != planned.known_sha256:
                image.operation = Operation.TRANSFORM
        row.read_ms = _ms_since(started)
        return image

    def _without_suspects(self, planned: PlannedImage) -> PlannedImage:
        """Return `planned` without its known output if another attempt may have replaced that."""
        if not self._claim.resumed or not (planned.known_output or planned.known_sha256):
            return planned
        with suppress(SettingsError):  # the output can't be read
            if planned.known_output and has_bytes(self._destination, self._name(planned), planned.known_output):
                return planned
        return replace(planned, known_sha256=None, known_output=None)

    def _get(self, source_path: str, place: Place) -> Object:
        limit = self._job.rules.max_source_bytes
        try:
            return with_retries(self._source.get_into, source_path, place, max_bytes=limit)
        except TooLarge as error:
            message = f"{error.reason}, more than {limit:,} (`max_source_bytes`)"
            raise ImageError(ErrorCode.DECODE_MEMORY, message) from error
        except Conflict as error:
            raise ImageError(ErrorCode.SOURCE_CHANGED, error.reason) from error
        except StorageError as error:
            code = _code_of(error, _READ_CODES, ErrorCode.SOURCE_FAILED)
            raise ImageError(code, f"reading failed: {error.reason}") from error

    def hung(self, planned: PlannedImage) -> Image:
        """Return an image whose answer is `source.timeout`: its read exceeded `max_read_seconds`."""
        image = self._new(planned)
        message = f"reading did not end within {self.max_read_seconds:g} s (`max_read_seconds`)"
        image.answer = ImageError(ErrorCode.SOURCE_TIMEOUT, message)
        return image

    def _new(self, planned: PlannedImage) -> Image:
        row = ManifestRow(
            source_path=planned.source_path,
            source_size=planned.source_size,
            source_mtime=planned.source_mtime,
            source_ctime=planned.source_ctime,
            source_etag=planned.source_etag,
            status="unchanged",
            attempts=planned.attempts + 1,
            read_ms=0.0,
            run_id=self._job.run_id,
            shard=self._claim.shard,
            worker=worker_name(),
            recipe_id=self._job.recipe_id,
            processed_at=datetime.now(UTC),
        )
        return Image(planned, row)

    def finish(self, images: list[Image]) -> list[ManifestRow]:
        """Write the outputs of images, each with an answer or unchanged, and return their rows.

        Raises:
            ReplacedError: another attempt has taken over the shard, or the run has ended.
        """
        self._claim.check()
        return [self._finish(image) for image in images]

    def _finish(self, image: Image) -> ManifestRow:
        row, made = image.row, image.answer
        if isinstance(made, Transformed):
            _add_facts(row, made.facts)
            with _as_answer(image, ErrorCode.WRITE_FAILED):
                self._write(image, made)
        if isinstance(image.answer, ImageError):
            self._add_error(row, image.answer, image.planned)
            if self._claim.resumed and not image.planned.known_output:
                with suppress(StorageError):  # delete an output of another attempt, if there is one
                    self._destination.delete([self._name(image.planned)])
        row.processed_at = datetime.now(UTC)
        return row

    def _name(self, planned: PlannedImage) -> str:
        return self._output_path(planned.source_path)

    def _write(self, image: Image, made: Transformed) -> None:
        """Write an output and fill its image's row."""
        row = image.row
        file_name = self._name(image.planned)
        started = time.perf_counter()
        try:
            with_retries(self._destination.put, file_name, made.data)
        except StorageError as error:
            code = _code_of(error, _WRITE_CODES, ErrorCode.WRITE_FAILED)
            raise ImageError(code, f"writing the output failed: {error.reason}") from error
        row.output_sha256 = hashlib.sha256(made.data).hexdigest()
        row.status = "ok"
        row.file_name = file_name
        row.format, row.width, row.height, row.channels = made.format, made.width, made.height, made.channels
        row.output_bytes = len(made.data)
        row.scale_x, row.scale_y, row.offset_x, row.offset_y = made.scale_x, made.scale_y, made.offset_x, made.offset_y
        row.warnings = made.warnings
        row.decode_ms, row.resize_ms, row.encode_ms = made.decode_ms, made.resize_ms, made.encode_ms
        row.write_ms = _ms_since(started)

    def _add_error(self, row: ManifestRow, error: ImageError, planned: PlannedImage) -> None:
        if isinstance(error, TransformError) and error.facts:
            _add_facts(row, error.facts)
        row.status = "failed"
        row.error_code = error.code.value
        row.error_stage = error.code.stage
        row.error_message = error.message
        # The output of the previous bytes stays until the current ones can be processed.
        row.warnings = [OUTPUT_KEPT] if error.code in RETRIED_NEXT_RUN and planned.known_output else []


def _code_of(error: StorageError, codes: dict[type[StorageError], ErrorCode], other: ErrorCode) -> ErrorCode:
    return next((code for kind, code in codes.items() if isinstance(error, kind)), other)


def _add_facts(row: ManifestRow, facts: SourceFacts) -> None:
    row.source_format, row.source_mode = facts.format, facts.mode
    row.source_width, row.source_height = facts.width, facts.height
    row.orientation, row.frames = facts.orientation, facts.frames


@contextmanager
def _as_answer(image: Image, code: ErrorCode) -> Iterator[None]:
    """Make any exception but a `DarkroomError` the image's answer, so that the shard goes on."""
    try:
        yield
    except DarkroomError:
        raise
    except Exception as error:  # noqa: BLE001 - it becomes a row
        image.answer = as_image_error(error, code)


def _ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1e3


@cache
def worker_name() -> str:
    """Return this process's name in the manifest: host and process id."""
    return f"{socket.gethostname()}/{os.getpid()}"
