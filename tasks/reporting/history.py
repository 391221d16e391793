"""Read the last runs of a destination from their files in `runs/`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median

from darkroom.tasks.dataset import sql
from darkroom.tasks.dataset.layout import Destination
from darkroom.tasks.dataset.manifest import read_record
from darkroom.tasks.dataset.runs import sort_runs
from darkroom.tasks.errors import DarkroomError
from darkroom.tasks.reporting.figures import COUNTS, STAGES, Counted
from darkroom.tasks.reporting.text import duration, megabytes
from darkroom.tasks.storage.store_errors import NotFound

RUNS_SHOWN = 30

OUTLIER = 5.0
"""The tallest bar shows at most this multiple of the median, so that a long first run does not flatten later bars."""

COLUMNS = ("started (UTC)", "made", "failed", "touched", "deleted", "MB read", "MB written", "took", "images/s")

SHORT_COLUMNS = ("started (UTC)", "made", "failed", "deleted", "took", "images/s")
"""The columns that fit on a terminal."""


@dataclass(frozen=True, slots=True)
class PastRun(Counted):
    """A run that processed images, or deleted some."""

    run_id: str
    started: datetime
    """UTC."""

    seconds: float
    """Seconds from its start until it published; of an interrupted run, until its last image."""

    work_seconds: float
    """Seconds of these in which shards ran."""

    ok: int
    failed: int
    touched: int
    deleted: int
    source_bytes: int
    output_bytes: int
    interrupted: bool
    """Whether it ended before it published, and a later run adopted its finished images."""

    def cells(self) -> tuple[str, ...]:
        """Return the run's cells for `COLUMNS`."""
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

    def short_cells(self) -> tuple[str, ...]:
        """Return the run's cells for `SHORT_COLUMNS`."""
        cells = dict(zip(COLUMNS, self.cells(), strict=True))
        return tuple(cells[column] for column in SHORT_COLUMNS)


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
    """Return the last runs of a destination that had anything to do.

    Raises `SettingsError` if this user may not list the run files.
    """
    import duckdb

    found = sort_runs(destination)
    runs: list[PastRun] = []
    unreadable, denied = list(found.unreadable), found.denied
    if not found.newest_first:
        return History((), _names(unreadable), _names(denied))
    with sql.connect_in_scratch() as (db, scratch):
        for path in found.newest_first[:last]:
            try:
                runs.append(_read(db, destination, path, scratch))
            except (DarkroomError, duckdb.Error, NotFound):
                unreadable.append(path)
    return History(tuple(runs), _names(unreadable), _names(denied))


def _names(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(path.rpartition("/")[2] for path in paths)


_MS = " + ".join(f"coalesce({stage}_ms, 0)" for stage in STAGES)
_RUN_SQL = f"""
    SELECT
        {COUNTS},
        min(processed_at - to_microseconds((1000 * ({_MS}))::BIGINT)) AS first,
        max(processed_at) AS last
    FROM """


def _read(db: sql.Connection, destination: Destination, path: str, scratch: Path) -> PastRun:
    file = destination.store.local(path, scratch)
    found = read_record(destination.store, path)
    [row] = sql.rows(db, _RUN_SQL + sql.parquet(file))
    first, last = row.pop("first"), row.pop("last")
    if found is None or not (started := found[1].started_at or first):
        raise DarkroomError(f"{destination.store.where(path)} does not say when its run began.")
    run_id, record = found
    first, last = first or started, last or started
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
    """Return the heights of bars for non-negative values, from 0 to 1, or above 1 for outliers."""
    series = list(values)
    most = max(series, default=0.0)
    usual = [value for value in series if value > 0]
    top = min(most, OUTLIER * median(usual)) if usual else 0.0
    return [value / top if top else 0.0 for value in series]
