"""Compute the figures of a run from the Parquet files that it published."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from darkroom.tasks.dataset import sql
from darkroom.tasks.dataset.layout import MANIFEST, RUNS, Destination, Workspace
from darkroom.tasks.settings import Job

FAILURES_SHOWN = 300
SLOWEST_SHOWN = 10
STAGES = ("read", "decode", "resize", "encode", "write")

COUNTS = """
    count(*) FILTER (status = 'ok') AS ok,
    count(*) FILTER (status = 'failed') AS failed,
    count(*) FILTER (status = 'unchanged') AS touched,
    coalesce(sum(source_size), 0)::BIGINT AS source_bytes,
    coalesce(sum(output_bytes), 0)::BIGINT AS output_bytes
"""
"""SQL expressions: the counts of a run file's rows."""

FAILED_COLUMNS = "source_path, error_code, coalesce(error_message, '') AS error_message"
"""SQL expressions: the fields of `FailedImage`."""


class StageTimes(BaseModel):
    """Milliseconds per image in one stage."""

    stage: str
    p50: float
    p95: float
    max: float


class FailedImage(BaseModel):
    """An image that failed."""

    source_path: str
    error_code: str
    error_message: str


class SlowImage(BaseModel):
    """One of the slowest images of a run."""

    source_path: str
    ms: float
    source_bytes: int
    megapixels: float


class Figures(BaseModel):
    """The figures of a run and of the manifest that it published."""

    model_config = ConfigDict(frozen=True)

    ok: int = 0
    failed: int = 0
    touched: int = 0
    """Images whose file has a new modification time, but the same bytes."""

    source_bytes: int = 0
    output_bytes: int = 0
    known: int = 0
    """Images in the manifest."""

    known_failed: int = 0
    error_codes: dict[str, int] = {}
    first_failures: tuple[FailedImage, ...] = ()
    """The first `FAILURES_SHOWN`."""

    stages: tuple[StageTimes, ...] = ()
    slowest: tuple[SlowImage, ...] = ()


class Counted:
    """Figures computed from a run's counts."""

    ok: int
    failed: int
    touched: int
    work_seconds: float

    @property
    def attempted(self) -> int:
        """Number of images that the run processed."""
        return self.ok + self.failed + self.touched

    @property
    def images_per_second(self) -> float:
        """Images processed per second of the time in which shards ran."""
        return self.attempted / self.work_seconds if self.work_seconds else 0.0


class Failures(NamedTuple):
    """The final results of a run's images after its own retries."""

    attempted: int
    """Number of images, without those in `again`."""

    codes: dict[str, int]
    """Number of them that failed, by error code."""

    again: int = 0
    """Number of images that failed in this run and in an earlier one."""


def read_figures(workspace: Workspace, job: Job) -> Figures:
    """Return the figures of a published run."""
    store = workspace.store
    with workspace.scratch() as scratch, sql.connect(scratch) as db:
        db.execute(f"CREATE VIEW run AS FROM {sql.parquet(store.local(f'{RUNS}/{job.run_file}', scratch))}")
        db.execute(f"CREATE VIEW manifest AS FROM {sql.parquet(store.local(MANIFEST, scratch))}")
        [counts] = sql.rows(db, f"SELECT {COUNTS} FROM run")
        [known] = sql.rows(
            db, "SELECT count(*) AS known, count(*) FILTER (status = 'failed') AS known_failed FROM manifest"
        )
        codes = sql.rows(
            db, "SELECT error_code, count(*) AS images FROM run WHERE status = 'failed' GROUP BY 1 ORDER BY 2 DESC, 1"
        )
        failures = sql.rows(
            db,
            f"SELECT {FAILED_COLUMNS} FROM run "
            f"WHERE status = 'failed' ORDER BY error_code, source_path LIMIT {FAILURES_SHOWN}",
        )
        total = " + ".join(f"{stage}_ms" for stage in STAGES)
        slowest = sql.rows(
            db,
            f"SELECT source_path, {total} AS ms, source_size AS source_bytes, "
            "source_width::BIGINT * source_height / 1e6 AS megapixels "
            f"FROM run WHERE status = 'ok' ORDER BY ms DESC LIMIT {SLOWEST_SHOWN}",
        )
        stages = [StageTimes(stage=stage, **_times(db, stage)) for stage in STAGES] if counts["ok"] else []
    return Figures(
        **counts,
        **known,
        error_codes={row["error_code"]: row["images"] for row in codes},
        first_failures=tuple(FailedImage(**row) for row in failures),
        stages=tuple(stages),
        slowest=tuple(SlowImage(**row) for row in slowest),
    )


def _times(db: sql.Connection, stage: str) -> dict[str, Any]:
    [times] = sql.rows(
        db,
        f"SELECT coalesce(quantile_cont({stage}_ms, 0.5), 0) AS p50, "
        f"coalesce(quantile_cont({stage}_ms, 0.95), 0) AS p95, coalesce(max({stage}_ms), 0) AS max FROM run",
    )
    return times


def read_failures(destination: Destination, run_id: str) -> Failures:
    """Return the final results of a run's images, from the run files of all its tries.

    An image whose least number of attempts in the run is above 1 failed in an earlier run.
    """
    files = [path for path in destination.run_files() if path.startswith(f"{RUNS}/{run_id}")]
    if not files:
        return Failures(0, {})
    with sql.connect_in_scratch() as (db, scratch):
        tries = sql.parquet(*(destination.store.local(path, scratch) for path in files))
        ends = db.execute(
            f"FROM ({(_ONE_TRY_SQL if len(files) == 1 else _TRIES_SQL).format(tries=tries)}) "
            "SELECT error_code, error_code IS NOT NULL AND tried_before AS again, count(*) AS images "
            "GROUP BY ALL ORDER BY images DESC, error_code"
        ).fetchall()
    return Failures(
        attempted=sum(images for _, again, images in ends if not again),
        codes={code: images for code, again, images in ends if code and not again},
        again=sum(images for _, again, images in ends if again),
    )


_ONE_TRY_SQL = "SELECT error_code, attempts > 1 AS tried_before FROM {tries}"
_TRIES_SQL = """
    SELECT arg_max({{'code': error_code}}, processed_at).code AS error_code, min(attempts) > 1 AS tried_before
    FROM {tries} GROUP BY source_path
"""
