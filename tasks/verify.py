"""The task that verifies a shard: read its outputs again and compare them with the manifest."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import asdict, dataclass
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from tasks.destination import Workspace
from tasks.errors import ErrorCode, ImageError, as_image_error
from tasks.findings import FINDINGS_SCHEMA, Finding, FindingKind
from tasks.imaging import Inspected
from tasks.journal import Row
from tasks.plan import read_shard
from tasks.recipe import Rules
from tasks.shard import PROGRESS_SECONDS, ShardRef, task_run_name, tell
from tasks.storage import LocalFolder
from tasks.worker.codec import thread_codec
from tasks.worker.orders import Orders
from tasks.worker.pipeline import Item, Pipeline, Stage
from tasks.worker.retries import with_retries
from tasks.worker.shared_batch import Operation, SharedBatch

NO_LIMIT = 1 << 40
"""Pixels: an output is as large as a recipe made it."""


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
    codec = thread_codec()
    codec.start()  # it imports its libraries meanwhile
    started = told_at = time.monotonic()
    workspace = shard.workspace
    rows = read_shard(workspace.plan, shard.number)
    findings: list[Finding] = []
    stage = Verifying(LocalFolder(os.fsencode(workspace.destination.root)))
    for done, finding in enumerate(Pipeline(stage, codec, partial(tell, shard)).run(rows), 1):
        if finding:
            findings.append(finding)
        if time.monotonic() - told_at >= PROGRESS_SECONDS:
            told_at = time.monotonic()
            tell(shard, done, len(findings))
    _write(workspace, shard, findings)
    size = sum(row["output_bytes"] for row in rows)
    return VerifyResult(shard.number, len(rows), len(findings), size, time.monotonic() - started)


def _write(workspace: Workspace, shard: ShardRef, findings: list[Finding]) -> None:
    if not findings:
        return
    part = workspace.journal / f"{shard.number:06d}.parquet"
    temporary = part.with_suffix(f".{shard.attempt}-{os.getpid()}.tmp")
    pq.write_table(pa.Table.from_pylist([asdict(finding) for finding in findings], FINDINGS_SCHEMA), temporary)
    os.replace(temporary, part)


@dataclass(slots=True)
class Output(Item):
    """An output that is read again."""

    problem: str = ""
    """Why its bytes are not those that were written, if they are not."""


class Verifying(Stage[Output, Finding | None]):
    """Reads outputs again and compares them with their rows of the manifest."""

    def __init__(self, outputs: LocalFolder) -> None:
        rules = Rules()
        orders = Orders(max_pixels=NO_LIMIT, max_image_seconds=rules.max_image_seconds)
        super().__init__(orders, rules.max_read_seconds)
        self._outputs = outputs

    def size_of(self, planned: Row) -> tuple[int, int]:
        """Return the output's size; there is no other."""
        return planned["output_bytes"], 0

    def read(self, planned: Row, batch: SharedBatch) -> Output:
        """Read an output, and say what its bytes are if they are not those that were written."""
        output = Output(planned)
        try:
            data, _ = with_retries(self._outputs.read_into, planned["file_name"], batch.place)
        except ImageError as error:
            output.answer = error
            return output
        except Exception as error:  # noqa: BLE001 - whatever it is, it is no proof of damage, and not the shard's end
            output.answer = as_image_error(error, ErrorCode.SOURCE_FAILED)
            return output
        output.source = batch.keep(len(data))
        if len(data) != planned["output_bytes"]:
            output.problem = f"{len(data):,} bytes instead of {planned['output_bytes']:,}"
        elif hashlib.sha256(data).hexdigest() != planned["output_sha256"]:
            output.problem = "other bytes than were written"
            output.operation = Operation.DESCRIBE
        else:
            output.operation = Operation.INSPECT
        return output

    def unread(self, planned: Row, error: ImageError) -> Output:
        """Return an output whose reading did not end."""
        return Output(planned, answer=error)

    def finish(self, items: list[Output]) -> list[Finding | None]:
        """Return what is wrong with each output, None if it is as its row says."""
        return [_finding(output) for output in items]


def _finding(output: Output) -> Finding | None:
    """Return what is wrong with an output."""
    row, answer = output.planned, output.answer
    found = partial(Finding, file_name=row["file_name"], source_path=row["source_path"])
    wanted = Inspected(row["format"], row["width"], row["height"], row["channels"])
    if output.problem:
        what = f": {answer}" if isinstance(answer, str) else ""
        return found(FindingKind.DAMAGED, detail=f"{output.problem}{what}")
    if isinstance(answer, ImageError):
        kind, detail = _failure(answer)
        return found(kind, detail=detail, present=kind is not FindingKind.MISSING)
    if answer == wanted:
        return None
    assert isinstance(answer, Inspected)  # noqa: S101 - what the codec process was asked for
    return found(FindingKind.DAMAGED, detail=f"{_say(answer)}, where the manifest says {_say(wanted)}")


def _failure(error: ImageError) -> tuple[FindingKind, str]:
    """Return what it means that an output could not be read, or not be decoded, and how to say so.

    What could not be read, whatever for, is `unreadable` and not `damaged`: it may be whole.
    """
    if error.code is ErrorCode.SOURCE_NOT_FOUND:
        return FindingKind.MISSING, "there is no such file"
    if error.code.stage == "source" or error.code in {ErrorCode.DECODE_MEMORY, ErrorCode.DECODE_TIMEOUT}:
        return FindingKind.UNREADABLE, error.message
    return FindingKind.DAMAGED, f"the bytes that were written are no image: {error.message}"


def _say(image: Inspected) -> str:
    return f"{image.format}, {image.width} × {image.height} pixels, {image.channels} channels"
