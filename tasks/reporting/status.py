"""What a destination holds, found without looking at outputs."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from darkroom.tasks.dataset import sql
from darkroom.tasks.dataset.integrity import damage
from darkroom.tasks.dataset.layout import Destination
from darkroom.tasks.dataset.lease import Lease, read_lease
from darkroom.tasks.dataset.manifest import ManifestInfo, read_whole


@dataclass(frozen=True, slots=True)
class LastRun:
    """The latest run that attempted any image. Times are UTC."""

    run_id: str
    ended: datetime
    images: int
    failed: int


@dataclass(frozen=True, slots=True)
class Status:
    """What a destination holds."""

    info: ManifestInfo | None
    statuses: dict[str, int] = field(default_factory=dict)
    error_codes: dict[str, int] = field(default_factory=dict)
    output_bytes: int = 0
    last_run: LastRun | None = None
    damaged_run: str = ""
    """The file of the latest run and what is wrong with it, if it is damaged."""

    lease: Lease | None = None
    unfinished: int = 0
    """Runs that ended without publishing their work; the next run adopts it."""


def read_status(destination: Destination) -> Status:
    """Return what a destination holds.

    Raises:
        SettingsError: this user may not read it.
        DarkroomError: its manifest is damaged, or can't be read.
    """
    info = read_whole(destination.manifest)
    lease = read_lease(destination)
    unfinished = count_unfinished(destination, lease)
    if info is None:
        return Status(None, lease=lease, unfinished=unfinished)
    with tempfile.TemporaryDirectory() as scratch, sql.connect(Path(scratch)) as db:
        db.execute(f"CREATE VIEW manifest AS FROM {sql.parquet(destination.manifest)}")
        statuses = db.execute("SELECT status, count(*) FROM manifest GROUP BY 1 ORDER BY 1 DESC").fetchall()
        codes = db.execute(
            "SELECT error_code, count(*) FROM manifest WHERE error_code IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1"
        ).fetchall()
        [(output_bytes,)] = db.execute("SELECT coalesce(sum(output_bytes), 0)::BIGINT FROM manifest").fetchall()
        latest = max(destination.run_files(), key=os.path.getmtime, default=None)
        reason = damage(latest) if latest else None
        last_run = _last_run(db, latest) if latest and not reason else None
    damaged_run = f"{latest} is damaged ({reason})" if reason else ""
    return Status(info, dict(statuses), dict(codes), output_bytes, last_run, damaged_run, lease, unfinished)


def count_unfinished(destination: Destination, lease: Lease | None) -> int:
    """Return how many runs ended without publishing their work; the lease holder has not ended.

    Raises:
        SettingsError: this user may not list them.
    """
    running = lease.run_id if lease and lease.is_live() else None
    return sum(workspace.flow_run_id != running for workspace in destination.unfinished())


def _last_run(db: sql.Connection, file: Path) -> LastRun:
    [row] = db.execute(
        f"SELECT max(processed_at), count(*), count(*) FILTER (status = 'failed') FROM {sql.parquet(file)}"
    ).fetchall()
    ended = row[0] or datetime.fromtimestamp(file.stat().st_mtime, UTC)
    return LastRun(file.name.partition(".")[0], ended, images=row[1], failed=row[2])
