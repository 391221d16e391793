"""The task that verifies a shard: read its outputs again and compare them with the manifest."""

from __future__ import annotations

import hashlib
import io
import time
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import pyarrow.parquet as pq
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from rich.filesize import decimal

from darkroom.tasks.dataset.layout import Workspace
from darkroom.tasks.dataset.rows import PlannedOutput, to_table
from darkroom.tasks.dataset.shard import PROGRESS_SECONDS, ShardRef, report_progress
from darkroom.tasks.errors import ErrorCode, ImageError, describe_unexpected
from darkroom.tasks.imaging import Inspected
from darkroom.tasks.plan import read_shard
from darkroom.tasks.reporting.findings import FINDINGS_SCHEMA, Finding, FindingKind
from darkroom.tasks.reporting.text import duration
from darkroom.tasks.settings import Rules
from darkroom.tasks.storage.retries import with_retries
from darkroom.tasks.storage.store import Store
from darkroom.tasks.storage.store_errors import NotFound, StorageError, writing
from darkroom.tasks.worker.codec import Codec, thread_codec
from darkroom.tasks.worker.orders import Orders
from darkroom.tasks.worker.shared_batch import Operation

READERS = 2
"""Outputs that a worker reads at a time, so that it doesn't wait for the disk between them; from a bucket, `AHEAD`."""

AHEAD = 16
"""Upper limit on the outputs held in memory."""

ORDERS = Orders(max_pixels=1 << 40, max_image_seconds=Rules().max_image_seconds)
"""Without a limit on pixels: outputs are as large as the recipe made them."""


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """The result of verifying a shard."""

    number: int
    done: int = 0
    failed: int = 0
    """Outputs that differ from the manifest or could not be read."""

    bytes: int = 0
    seconds: float = 0.0

    def describe(self) -> str:
        """Return a line about the shard's outcome."""
        return (
            f"{self.done:,} read again, {self.failed:,} not as they should be; "
            f"{decimal(self.bytes)}, {duration(self.seconds)}"
        )


@task(name="verify_shard", task_run_name="verify {shard.label}", cache_policy=NO_CACHE, persist_result=False)
def verify_shard(shard: ShardRef) -> VerifyResult:
    """Read a shard's outputs again; one that differs from the manifest is a finding, not an error."""
    result = check_shard(shard)
    get_run_logger().info(result.describe())
    return result


def check_shard(shard: ShardRef) -> VerifyResult:
    """Do what `verify_shard` does, without Prefect.

    Findings are written at the end: another attempt starts the shard from its beginning.
    """
    report_progress(shard)  # before anything that may hang
    codec = thread_codec()
    codec.start()  # it imports its libraries meanwhile
    started = time.monotonic()
    workspace = shard.workspace
    planned = read_shard(workspace, shard.number, PlannedOutput)
    findings = list(_check_all(codec, workspace, shard, planned))
    _write(workspace, shard, findings)
    size = sum(output.output_bytes for output in planned)
    return VerifyResult(shard.number, len(planned), len(findings), size, time.monotonic() - started)


def _check_all(codec: Codec, workspace: Workspace, shard: ShardRef, planned: list[PlannedOutput]) -> Iterator[Finding]:
    """Yield a shard's findings, and report progress."""
    failed = 0
    reported_at = 0.0
    with closing(_read_ahead(workspace.store, planned)) as read:
        for done, output in enumerate(read, 1):
            if finding := compare(codec, output):
                failed += 1
                yield finding
            if time.monotonic() - reported_at >= PROGRESS_SECONDS:
                reported_at = time.monotonic()
                report_progress(shard, done, failed)


def _read_ahead(
    store: Store, planned: list[PlannedOutput]
) -> Generator[tuple[PlannedOutput, memoryview | Exception], None, None]:
    """Yield the result of `read_output` for each output, in the same order."""
    with ThreadPoolExecutor(AHEAD if store.is_remote else READERS, "verify") as readers:
        try:
            waiting = deque(readers.submit(read_output, store, output) for output in planned[:AHEAD])
            for number in range(AHEAD, AHEAD + len(planned)):
                yield waiting.popleft().result()
                if number < len(planned):
                    waiting.append(readers.submit(read_output, store, planned[number]))
        finally:
            readers.shutdown(wait=False, cancel_futures=True)


def _write(workspace: Workspace, shard: ShardRef, findings: list[Finding]) -> None:
    if not findings:
        return
    part = io.BytesIO()
    pq.write_table(to_table(findings, FINDINGS_SCHEMA), part)
    with writing(workspace.store.location):
        workspace.store.put(f"{workspace.journal}/{shard.number:06d}.parquet", part.getbuffer(), durable=True)


def read_output(store: Store, planned: PlannedOutput) -> tuple[PlannedOutput, memoryview | Exception]:
    """Return a planned output with its bytes, or with the error that reading them raised."""
    try:
        return planned, with_retries(store.get, planned.file_name).data
    except Exception as error:  # noqa: BLE001 - no error proves damage or may end the shard
        return planned, error


def compare(codec: Codec, output: tuple[PlannedOutput, memoryview | Exception]) -> Finding | None:
    """Return how an output differs from its row of the manifest; None if it doesn't.

    An output that could not be read is `unreadable`, not `damaged`: it may be intact.
    """
    planned, data = output
    found = partial(Finding, file_name=planned.file_name, source_path=planned.source_path)
    if isinstance(data, NotFound):
        return found(FindingKind.MISSING, detail="there is no such file", present=False)
    if isinstance(data, Exception):
        why = f"reading failed: {data.reason}" if isinstance(data, StorageError) else describe_unexpected(data)
        return found(FindingKind.UNREADABLE, detail=why)
    problem = _problem(codec, data, planned)
    if isinstance(problem, ImageError):
        return found(FindingKind.UNREADABLE, detail=problem.message)
    return found(FindingKind.DAMAGED, detail=problem) if problem else None


def _problem(codec: Codec, data: memoryview, planned: PlannedOutput) -> str | ImageError:
    """Return how an output's bytes differ from the manifest, empty if they don't; an `ImageError` proves no damage.

    Only bytes with the right hash are decoded.
    """
    if len(data) != planned.output_bytes:
        return f"{len(data):,} bytes instead of {planned.output_bytes:,}"
    if hashlib.sha256(data).hexdigest() != planned.output_sha256:
        [described] = codec.run(Operation.DESCRIBE, ORDERS, [data])
        return f"other bytes than were written: {described if isinstance(described, str) else 'no image'}"
    [image] = codec.run(Operation.INSPECT, ORDERS, [data])
    if isinstance(image, ImageError):
        if image.code in {ErrorCode.DECODE_MEMORY, ErrorCode.DECODE_TIMEOUT}:
            return image
        return f"the bytes that were written are no image: {image.message}"
    assert isinstance(image, Inspected)  # noqa: S101 - what the codec process was asked for
    wanted = Inspected(planned.format, planned.width, planned.height, planned.channels)
    return "" if image == wanted else f"{_describe(image)}, where the manifest says {_describe(wanted)}"


def _describe(image: Inspected) -> str:
    return f"{image.format}, {image.width} × {image.height} pixels, {image.channels} channels"
