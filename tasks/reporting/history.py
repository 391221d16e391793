"""The last runs of a destination, from their files in `runs/`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from darkroom.tasks.dataset import sql
from darkroom.tasks.dataset.layout import Destination
from darkroom.tasks.dataset.manifest import read_record
from darkroom.tasks.errors import DarkroomError, SettingsError
from darkroom.tasks.reporting.figures import COUNTS, STAGES, Counted
from darkroom.tasks.reporting.text import duration, megabytes
from darkroom.tasks.storage.durable import reading

RUNS_SHOWN = 30

OUTLIER = 5.0
"""A bar ends at this multiple of the median: the first run must not flatten the bars of all runs after it."""

COLUMNS = ("started (UTC)", "made", "failed", "touched", "deleted", "MB read", "MB written", "took", "images/s")


@dataclass(frozen=True, slots=True)
class PastRun(Counted):
    """A run that processed images, or deleted some."""

    run_id: str
    started: datetime
    """UTC."""

    seconds: float
    """From its start until it published; if it was interrupted, until its last image."""

    work_seconds: float
    """Of them, those in which shards ran."""

    ok: int
    failed: int
    touched: int
    deleted: int
    source_bytes: int
    output_bytes: int
    interrupted: bool
    """Whether it did not end by itself; a later run adopted what it had finished."""

    def cells(self) -> tuple[str, ...]:
        """Return its cells under `COLUMNS`."""
        return (
            f"{self.started:%Y-%m-%d %H:%M}",
            f"{self.ok:,}",
            f"{self.failed:,}",
            f"{self.touched:,}",
            f"{self.deleted:,}",
            megabytes(self.source_bytes),
            megabytes(self.output_bytes),
            duration(self.seconds),
            f"{self.images_per_second:,.1f}",
        )


@dataclass(frozen=True, slots=True)
class History:
    """The last runs of a destination."""

    runs: tuple[PastRun, ...] = ()
    """The newest first."""

    unreadable: tuple[str, ...] = ()
    """Names of run files that are damaged, or were written by another version of Darkroom."""

    denied: tuple[str, ...] = ()
    """Names of run files that this user may not read."""


def read_history(destination: Destination, last: int = RUNS_SHOWN) -> History:
    """Return the last runs of a destination; a run with nothing to do leaves no file, and is not among them.

    Raises:
        SettingsError: this user may not list the run files.
    """
    import duckdb

    runs: list[PastRun] = []
    unreadable: list[str] = []
    denied: list[str] = []
    files = _newest(destination, last)
    if not files:
        return History()
    with tempfile.TemporaryDirectory() as scratch, sql.connect(Path(scratch)) as db:
        for file in files:
            try:
                runs.append(_read(db, file))
            except SettingsError:
                denied.append(file.name)
            except (DarkroomError, duckdb.Error, FileNotFoundError):
                unreadable.append(file.name)
    return History(tuple(sorted(runs, key=lambda run: run.started, reverse=True)), tuple(unreadable), tuple(denied))


def _newest(destination: Destination, last: int) -> list[Path]:
    """Return the files that were written last; none is opened."""
    times: dict[Path, int] = {}
    for file in destination.run_files():
        with reading(), suppress(FileNotFoundError):
            times[file] = file.stat().st_mtime_ns
    return sorted(times, key=lambda file: times[file], reverse=True)[:last]


_MS = " + ".join(f"coalesce({stage}_ms, 0)" for stage in STAGES)
_RUN_SQL = f"""
    SELECT
        {COUNTS},
        min(processed_at - to_microseconds((1000 * ({_MS}))::BIGINT)) AS first,
        max(processed_at) AS last
    FROM """


def _read(db: sql.Connection, file: Path) -> PastRun:
    found = read_record(file)
    if found is None:
        raise FileNotFoundError(file)
    run_id, record = found
    [row] = sql.rows(db, _RUN_SQL + sql.parquet(file))
    written = datetime.fromtimestamp(file.stat().st_mtime, UTC)
    first, last = row.pop("first") or written, row.pop("last") or written
    started = record.started_at or first
    return PastRun(
        run_id=run_id,
        started=started,
        seconds=_or_span(record.seconds, started, last),
        work_seconds=_or_span(record.work_seconds, first, last),
        deleted=record.deleted,
        interrupted=record.started_at is not None and record.seconds is None,
        **row,
    )


def _or_span(seconds: float | None, start: datetime, end: datetime) -> float:
    return max(0.0, (end - start).total_seconds()) if seconds is None else seconds


def bar_heights(values: Iterable[float]) -> list[float]:
    """Return the heights of the bars of a non-negative series, from 0 to 1; an outlier's is above 1."""
    series = list(values)
    most = max(series, default=0.0)
    usual = [value for value in series if value > 0]
    top = min(most, OUTLIER * median(usual)) if usual else 0.0
    return [value / top if top else 0.0 for value in series]
