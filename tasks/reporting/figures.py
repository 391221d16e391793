"""What the Parquet files of a run tell about it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from darkroom.tasks.dataset import sql
from darkroom.tasks.dataset.layout import MANIFEST, RUNS, Destination, Workspace
from darkroom.tasks.reporting.run_report import FailedImage, Failures, RunReport, SlowImage, StageTimes
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
"""SQL: what is counted of the rows of a run's file."""


def read_figures(report: RunReport, workspace: Workspace, job: Job) -> None:
    """Fill in what the run's own Parquet file and the manifest tell, once they are published."""
    store = workspace.store
    report.published = True
    with workspace.scratch() as scratch, sql.connect(scratch) as db:
        db.execute(f"CREATE VIEW run AS FROM {sql.parquet(store.local(f'{RUNS}/{job.run_file}', scratch))}")
        db.execute(f"CREATE VIEW manifest AS FROM {sql.parquet(store.local(MANIFEST, scratch))}")
        [counts] = sql.rows(db, f"SELECT {COUNTS} FROM run")
        [known] = sql.rows(
            db, "SELECT count(*) AS known, count(*) FILTER (status = 'failed') AS known_failed FROM manifest"
        )
        for name, value in (counts | known).items():
            setattr(report, name, value)
        report.error_codes = {
            row["error_code"]: row["images"]
            for row in sql.rows(
                db,
                "SELECT error_code, count(*) AS images FROM run WHERE status = 'failed' GROUP BY 1 ORDER BY 2 DESC, 1",
            )
        }
        report.failures = [
            FailedImage(**row)
            for row in sql.rows(
                db,
                "SELECT source_path, error_code, coalesce(error_message, '') AS error_message FROM run "
                f"WHERE status = 'failed' ORDER BY error_code, source_path LIMIT {FAILURES_SHOWN}",
            )
        ]
        report.stages = [StageTimes(stage=stage, **_times(db, stage)) for stage in STAGES] if report.ok else []
        total = " + ".join(f"{stage}_ms" for stage in STAGES)
        report.slowest = [
            SlowImage(**row)
            for row in sql.rows(
                db,
                f"SELECT source_path, {total} AS ms, source_size AS source_bytes, "
                "source_width::BIGINT * source_height / 1e6 AS megapixels "
                f"FROM run WHERE status = 'ok' ORDER BY ms DESC LIMIT {SLOWEST_SHOWN}",
            )
        ]


def read_failures(destination: Destination, run_id: str) -> Failures:
    """Return how the images of a run came out that was maybe tried more than once: each try leaves a file.

    An image whose first attempt in the run was not its first had failed in an earlier one.
    """
    files = [path for path in destination.run_files() if path.startswith(f"{RUNS}/{run_id}")]
    if not files:
        return Failures(0, {})
    with tempfile.TemporaryDirectory() as scratch, sql.connect(Path(scratch)) as db:
        tries = sql.parquet(*(destination.store.local(path, Path(scratch)) for path in files))
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


def _times(db: sql.Connection, stage: str) -> dict[str, Any]:
    [times] = sql.rows(
        db,
        f"SELECT coalesce(quantile_cont({stage}_ms, 0.5), 0) AS p50, "
        f"coalesce(quantile_cont({stage}_ms, 0.95), 0) AS p95, coalesce(max({stage}_ms), 0) AS max FROM run",
    )
    return times
