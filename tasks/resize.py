"""The shard task: process a shard's images with the pipeline, and journal them."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Crashed
from rich.filesize import decimal

from darkroom.tasks.dataset.claim import Claim, ReplacedError, claim_shard
from darkroom.tasks.dataset.journal import Journal, finished_paths, whole_parts
from darkroom.tasks.dataset.layout import Workspace
from darkroom.tasks.dataset.rows import ManifestRow, PlannedImage
from darkroom.tasks.dataset.shard import PROGRESS_SECONDS, ShardRef, report_progress
from darkroom.tasks.errors import DarkroomError, DestinationError, ErrorCode
from darkroom.tasks.plan import read_shard
from darkroom.tasks.reporting.text import count_codes, duration
from darkroom.tasks.settings import Job
from darkroom.tasks.storage.retries import with_retries
from darkroom.tasks.storage.store_errors import writing
from darkroom.tasks.worker.codec import thread_codec
from darkroom.tasks.worker.images import Images, worker_name
from darkroom.tasks.worker.pipeline import Pipeline

UNWRITABLE_IMAGES = 20
"""After this many outputs in a row that can't be written, the destination itself is checked."""

_UNWRITABLE = {ErrorCode.WRITE_NO_SPACE, ErrorCode.WRITE_DENIED}


@dataclass(frozen=True, slots=True)
class ShardResult:
    """The result of an attempt at a shard."""

    number: int
    ok: int = 0
    failed: int = 0
    unchanged: int = 0
    resumed: int = 0
    """Images that former attempts had finished."""

    seconds: float = 0.0
    source_bytes: int = 0
    output_bytes: int = 0
    error_codes: dict[str, int] = field(default_factory=dict)

    @property
    def done(self) -> int:
        """Images done, failed ones included."""
        return self.ok + self.failed + self.unchanged + self.resumed

    def describe(self) -> str:
        """Return a line about the shard's outcome."""
        rate = (self.ok + self.failed + self.unchanged) / self.seconds if self.seconds else 0.0
        codes = count_codes(dict(sorted(self.error_codes.items())))
        return (
            f"{self.ok:,} made, {self.failed:,} failed{f' ({codes})' if codes else ''}, {self.unchanged:,} unchanged, "
            f"{self.resumed:,} done before; {decimal(self.source_bytes)} in, {decimal(self.output_bytes)} out, "
            f"{duration(self.seconds)}, {rate:,.1f} images/s"
        )


@task(name="resize_shard", task_run_name="resize {shard.label}", cache_policy=NO_CACHE, persist_result=False)
def resize_shard(shard: ShardRef) -> ShardResult:
    """Process a shard's images that no former attempt has finished; a bad image is a row, not an error."""
    try:
        result = work_shard(shard)
    except ReplacedError as reason:
        return Crashed(message=str(reason))  # type: ignore[return-value] # Prefect makes it the task run's state
    get_run_logger().info(result.describe())
    return result


def work_shard(shard: ShardRef) -> ShardResult:
    """Do what `resize_shard` does, without Prefect.

    Raises:
        DestinationError: the destination can't be written to any more.
        DarkroomError: the codec libraries of this worker and the flow differ, or no codec process can be started.
        ReplacedError: another attempt has taken over the shard, or the run has ended: its flow may have been cancelled
            while workers of an existing cluster go on.
    """
    report_progress(shard)  # before anything that may hang
    codec = thread_codec()
    codec.start()  # it imports its libraries meanwhile
    workspace = shard.workspace
    with ThreadPoolExecutor(1, "claim") as beside:  # requests to a bucket far away take their time
        begun = beside.submit(_begin, shard)
        try:
            planned = read_shard(workspace, shard.number, PlannedImage)
        finally:  # its error, if any, says more than that of a plan that is gone
            job, claim = begun.result()
    # After the claim, no other attempt writes to the journal; the first attempt's is empty.
    parts = workspace.journal_parts(shard.number) if claim.resumed else []
    done = finished_paths(workspace.store, whole_parts(workspace.store, parts))
    left = [image for image in planned if image.source_path not in done]
    journal = Journal(claim, sync=job.rules.sync_outputs)
    tally = _Tally(shard, len(planned) - len(left))
    images = Images(job, claim, _memory_share())
    pipeline = Pipeline(images, codec, tally.report_progress)
    try:
        for row in pipeline.run(left):
            journal.add(row)
            tally.add(row)
            if tally.unwritable >= UNWRITABLE_IMAGES:
                _check_writable(workspace, row)
    finally:
        journal.flush()
    return tally.result()


def _begin(shard: ShardRef) -> tuple[Job, Claim]:
    """Return the run's job, and the claim of a new attempt at a shard; raise what `work_shard` raises."""
    workspace = shard.workspace
    with writing(workspace.store.location):  # a missing job means that the destination was moved or removed
        job = with_retries(workspace.load_job)
        if job.recipe.recipe_id != job.recipe_id:
            raise DarkroomError(
                f"Worker {worker_name()} has other versions of the codec libraries than the flow. "
                "Install the same requirements.lock everywhere."
            )
        return job, with_retries(claim_shard, workspace, shard.number, shard.new_attempt())


def _check_writable(workspace: Workspace, row: ManifestRow) -> None:
    """Raise `DestinationError` if not only the last outputs but the whole destination can't be written to."""
    location, probe = workspace.store.location, f"{workspace.path}/probe-{worker_name().replace('/', '-')}"
    if row.error_code == ErrorCode.WRITE_NO_SPACE:
        raise DestinationError(location, "no space is left on the device", "Free some space there")
    with writing(location):
        workspace.store.put(probe, b"")
        workspace.store.delete([probe])


def _memory_share() -> int | None:
    """Return the bytes of memory for each thread of this Dask worker; None if it has no limit."""
    from distributed import get_worker

    try:
        worker = get_worker()
    except ValueError:
        return None
    limit: int | None = worker.memory_manager.memory_limit
    return limit // worker.state.nthreads if limit else None


class _Tally:
    """Counts rows, and reports a shard's progress."""

    def __init__(self, shard: ShardRef, resumed: int) -> None:
        self._shard = shard
        self._resumed = resumed
        self._started = time.monotonic()
        self._reported_at = 0.0
        self._status: Counter[str] = Counter()
        self._codes: Counter[str] = Counter()
        self._source_bytes = 0
        self._output_bytes = 0
        self.unwritable = 0
        """Images in a row whose outputs could not be written."""

    def add(self, row: ManifestRow) -> None:
        self._status[row.status] += 1
        self.unwritable = self.unwritable + 1 if row.error_code in _UNWRITABLE else 0
        if row.error_code:
            self._codes[row.error_code] += 1
        self._source_bytes += row.source_size or 0
        self._output_bytes += row.output_bytes or 0
        self.report_progress()

    def report_progress(self) -> None:
        """Report how far the shard is, at most every `PROGRESS_SECONDS`."""
        if time.monotonic() - self._reported_at >= PROGRESS_SECONDS:
            self._reported_at = time.monotonic()
            report_progress(self._shard, self._status.total(), self._status["failed"])

    def result(self) -> ShardResult:
        return ShardResult(
            number=self._shard.number,
            ok=self._status["ok"],
            failed=self._status["failed"],
            unchanged=self._status["unchanged"],
            resumed=self._resumed,
            seconds=time.monotonic() - self._started,
            source_bytes=self._source_bytes,
            output_bytes=self._output_bytes,
            error_codes=dict(self._codes),
        )
