"""The task that verifies a shard: read its outputs again and compare them with the manifest."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from tasks.destination import Workspace
from tasks.errors import ErrorCode, ImageError
from tasks.findings import FINDINGS_SCHEMA, Finding, FindingKind
from tasks.imaging import Inspected, configure_codecs, describe_bytes, inspect_image
from tasks.journal import Row
from tasks.pipeline import with_retries
from tasks.plan import read_shard
from tasks.shard import PROGRESS_SECONDS, ShardRef, task_run_name, tell
from tasks.storage import LocalFolder

READERS = 2
"""Outputs that a worker reads at a time, so that it need not wait for the disk between them."""


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


@task(name="verify_shard", task_run_name=task_run_name, cache_policy=NO_CACHE, persist_result=False)
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
    configure_codecs()
    started = time.monotonic()
    workspace = shard.workspace
    shard.begin()
    rows = read_shard(workspace.plan, shard.number)
    findings = list(_check_all(workspace, shard, rows))
    _write(workspace, shard, findings)
    size = sum(row["output_bytes"] for row in rows)
    return VerifyResult(shard.number, len(rows), len(findings), size, time.monotonic() - started)


def _check_all(workspace: Workspace, shard: ShardRef, rows: list[Row]) -> Iterator[Finding]:
    """Yield what is found, and say every now and then how far the shard is."""
    outputs = LocalFolder(os.fsencode(workspace.destination.root))
    failed = 0
    told_at = 0.0
    with ThreadPoolExecutor(READERS, "verify") as readers:
        try:
            for done, finding in enumerate(readers.map(partial(check_output, outputs), rows), 1):
                if finding:
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


def check_output(outputs: LocalFolder, row: Row) -> Finding | None:
    """Read an output and return what is wrong with it; None if it is as its row of the manifest says.

    What could not be read, whatever for, is `unreadable` and not `damaged`: it may be whole.
    """
    found = partial(Finding, file_name=row["file_name"], source_path=row["source_path"])
    try:
        data, _ = with_retries(outputs.read, row["file_name"])
        problem = _compare(data, row)
    except ImageError as error:
        if error.code is ErrorCode.SOURCE_NOT_FOUND:
            return found(FindingKind.MISSING, detail="there is no such file", present=False)
        return found(FindingKind.UNREADABLE, detail=error.message)
    except MemoryError:
        return found(FindingKind.UNREADABLE, detail="the worker's memory did not suffice")
    except Exception as error:  # noqa: BLE001 - whatever it is, it is no proof of damage, and not the shard's end
        return found(FindingKind.UNREADABLE, detail=f"unexpected {type(error).__name__}")
    return found(FindingKind.DAMAGED, detail=problem) if problem else None


def _compare(data: bytes, row: Row) -> str:
    """Say in what an output's bytes are not what the manifest says; nothing if they are.

    No decoder sees bytes that are not those that were written.
    """
    if len(data) != row["output_bytes"]:
        return f"{len(data):,} bytes instead of {row['output_bytes']:,}"
    if hashlib.sha256(data).hexdigest() != row["output_sha256"]:
        return f"other bytes than were written: {describe_bytes(data)}"
    wanted = Inspected(row["format"], row["width"], row["height"], row["channels"])
    try:
        image = inspect_image(data)
    except ImageError as error:
        if error.code is ErrorCode.DECODE_MEMORY:
            raise MemoryError from error
        return f"the bytes that were written are no image: {error.message}"
    return "" if image == wanted else f"{_say(image)}, where the manifest says {_say(wanted)}"


def _say(image: Inspected) -> str:
    return f"{image.format}, {image.width} × {image.height} pixels, {image.channels} channels"
