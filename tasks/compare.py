"""The task that verifies a shard: read its outputs again and compare them with the manifest."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain

import pyarrow as pa
import pyarrow.parquet as pq
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from darkroom.tasks.dataset.journal import Row
from darkroom.tasks.dataset.layout import Workspace
from darkroom.tasks.dataset.shard import PROGRESS_SECONDS, ShardRef, tell
from darkroom.tasks.errors import ErrorCode, ImageError, as_image_error
from darkroom.tasks.imaging import Inspected
from darkroom.tasks.plan import read_shard
from darkroom.tasks.reporting.findings import FINDINGS_SCHEMA, Finding, FindingKind
from darkroom.tasks.settings import Rules
from darkroom.tasks.storage.local import LocalFolder
from darkroom.tasks.worker.codec import Codec, thread_codec
from darkroom.tasks.worker.orders import Orders
from darkroom.tasks.worker.retries import with_retries
from darkroom.tasks.worker.shared_batch import Operation

READERS = 2
"""Outputs that a worker reads at a time, so that it need not wait for the disk between them."""

AHEAD = 16
"""Outputs that are held in memory at most."""

ORDERS = Orders(max_pixels=1 << 40, max_image_seconds=Rules().max_image_seconds)
"""An output is as large as a recipe made it."""


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """What came of verifying a shard."""

    number: int
    done: int = 0
    failed: int = 0
    """Outputs that are not as the manifest says, or could not be read."""

    bytes: int = 0
    seconds: float = 0.0

    def describe(self) -> str:
        """Say in one line what came of the shard."""
        return (
            f"{self.done} read again, {self.failed} not as they should be; "
            f"{self.bytes / 1e6:.1f} MB, {self.seconds:.1f} s"
        )


@task(name="verify_shard", task_run_name="verify {shard.label}", cache_policy=NO_CACHE, persist_result=False)
def verify_shard(shard: ShardRef) -> VerifyResult:
    """Read the outputs of one shard again; one that is not as the manifest says is a finding, not an error."""
    result = check_shard(shard)
    get_run_logger().info(result.describe())
    return result


def check_shard(shard: ShardRef) -> VerifyResult:
    """Do what `verify_shard` does, without Prefect.

    What is found is written at the end: another attempt at a shard begins it again, and finds the same.
    """
    tell(shard)  # before anything is touched that may hang
    codec = thread_codec()
    codec.start()  # it imports its libraries meanwhile
    started = time.monotonic()
    workspace = shard.workspace
    rows = read_shard(workspace.plan, shard.number)
    findings = list(_check_all(codec, workspace, shard, rows))
    _write(workspace, shard, findings)
    size = sum(row["output_bytes"] for row in rows)
    return VerifyResult(shard.number, len(rows), len(findings), size, time.monotonic() - started)


def _check_all(codec: Codec, workspace: Workspace, shard: ShardRef, rows: list[Row]) -> Iterator[Finding]:
    """Yield what is found, and say every now and then how far the shard is."""
    outputs = LocalFolder(os.fsencode(workspace.destination.root))
    starts = range(0, len(rows), AHEAD)
    failed = 0
    told_at = 0.0
    with ThreadPoolExecutor(READERS, "verify") as readers:
        try:
            read = (readers.map(partial(read_output, outputs), rows[first : first + AHEAD]) for first in starts)
            for done, output in enumerate(chain.from_iterable(read), 1):
                if finding := compare(codec, output):
                    failed += 1
                    yield finding
                if time.monotonic() - told_at >= PROGRESS_SECONDS:
                    told_at = time.monotonic()
                    tell(shard, done, failed)
        finally:
            readers.shutdown(wait=False, cancel_futures=True)


def _write(workspace: Workspace, shard: ShardRef, findings: list[Finding]) -> None:
    if not findings:
        return
    part = workspace.journal / f"{shard.number:06d}.parquet"
    temporary = part.with_suffix(f".{shard.attempt}-{os.getpid()}.tmp")
    pq.write_table(pa.Table.from_pylist([asdict(finding) for finding in findings], FINDINGS_SCHEMA), temporary)
    os.replace(temporary, part)


def read_output(outputs: LocalFolder, row: Row) -> tuple[Row, bytes | ImageError]:
    """Read an output; return its row of the manifest and its bytes, or why they could not be read."""
    try:
        return row, with_retries(outputs.read, row["file_name"])
    except Exception as error:  # noqa: BLE001 - whatever it is, it is no proof of damage, and not the shard's end
        return row, as_image_error(error, ErrorCode.SOURCE_FAILED)


def compare(codec: Codec, output: tuple[Row, bytes | ImageError]) -> Finding | None:
    """Return what is wrong with an output that was read; None if it is as its row of the manifest says.

    What could not be read, whatever for, is `unreadable` and not `damaged`: it may be whole.
    """
    row, data = output
    found = partial(Finding, file_name=row["file_name"], source_path=row["source_path"])
    problem = data if isinstance(data, ImageError) else _problem(codec, data, row)
    if not isinstance(problem, ImageError):
        return found(FindingKind.DAMAGED, detail=problem) if problem else None
    if problem.code is ErrorCode.SOURCE_NOT_FOUND:
        return found(FindingKind.MISSING, detail="there is no such file", present=False)
    return found(FindingKind.UNREADABLE, detail=problem.message)


def _problem(codec: Codec, data: bytes, row: Row) -> str | ImageError:
    """Say in what an output's bytes are not what the manifest says; nothing if they are.

    No decoder sees bytes that are not those that were written. An `ImageError` is no proof of damage.
    """
    if len(data) != row["output_bytes"]:
        return f"{len(data):,} bytes instead of {row['output_bytes']:,}"
    if hashlib.sha256(data).hexdigest() != row["output_sha256"]:
        [described] = codec.run(Operation.DESCRIBE, ORDERS, [data])
        return f"other bytes than were written: {described if isinstance(described, str) else 'no image'}"
    [image] = codec.run(Operation.INSPECT, ORDERS, [data])
    if isinstance(image, ImageError):
        if image.code in {ErrorCode.DECODE_MEMORY, ErrorCode.DECODE_TIMEOUT}:
            return image
        return f"the bytes that were written are no image: {image.message}"
    assert isinstance(image, Inspected)  # noqa: S101 - what the codec process was asked for
    wanted = Inspected(row["format"], row["width"], row["height"], row["channels"])
    return "" if image == wanted else f"{_say(image)}, where the manifest says {_say(wanted)}"


def _say(image: Inspected) -> str:
    return f"{image.format}, {image.width} × {image.height} pixels, {image.channels} channels"
