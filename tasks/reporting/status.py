"""Read what a destination holds, without reading its outputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from darkroom.tasks.dataset import sql
from darkroom.tasks.dataset.integrity import find_damage, is_whole
from darkroom.tasks.dataset.layout import MANIFEST, Destination
from darkroom.tasks.dataset.lease import Lease, read_lease
from darkroom.tasks.dataset.manifest import ManifestInfo, read_record, read_whole
from darkroom.tasks.dataset.runs import newest_run
from darkroom.tasks.storage.store import local_if_there


@dataclass(frozen=True, slots=True)
class LastRun:
    """The latest run that published. Times are UTC."""

    run_id: str
    ended: datetime
    images: int
    failed: int


@dataclass(frozen=True, slots=True)
class Unfinished:
    """Runs that ended without publishing; the next run adopts their finished images."""

    runs: int = 0
    images: int = 0
    """Number of images that they finished."""


@dataclass(frozen=True, slots=True)
class Status:
    """What a destination holds."""

    info: ManifestInfo | None
    statuses: dict[str, int] = field(default_factory=dict)
    error_codes: dict[str, int] = field(default_factory=dict)
    output_bytes: int = 0
    last_run: LastRun | None = None
    damaged_run: str = ""
    """The latest run's file and its damage; empty if it has none."""

    lease: Lease | None = None
    unfinished: Unfinished = field(default_factory=Unfinished)


def read_status(destination: Destination) -> Status:
    """Return what a destination holds.

    Raises:
        SettingsError: this user may not read the destination.
        DarkroomError: the manifest is damaged, or was written by another version of Darkroom.
    """
    info = read_whole(destination)
    store = destination.store
    lease = read_lease(destination)
    unfinished = read_unfinished(destination, lease)
    if info is None:
        return Status(None, lease=lease, unfinished=unfinished)
    with sql.connect_in_scratch() as (db, scratch):
        db.execute(f"CREATE VIEW manifest AS FROM {sql.parquet(store.local(MANIFEST, scratch))}")
        statuses = db.execute("SELECT status, count(*) FROM manifest GROUP BY 1 ORDER BY 1 DESC").fetchall()
        codes = db.execute(
            "SELECT error_code, count(*) FROM manifest WHERE error_code IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1"
        ).fetchall()
        [(output_bytes,)] = db.execute("SELECT coalesce(sum(output_bytes), 0)::BIGINT FROM manifest").fetchall()
        latest = newest_run(destination, info)
        reason = find_damage(store, latest) if latest else None
        last_run = _last_run(db, destination, latest, scratch) if latest and not reason else None
    damaged_run = f"{store.where(latest)} is damaged ({reason})" if latest and reason else ""
    return Status(info, dict(statuses), dict(codes), output_bytes, last_run, damaged_run, lease, unfinished)


def read_unfinished(destination: Destination, lease: Lease | None) -> Unfinished:
    """Return the unpublished work of runs other than the lease holder, which has not ended.

    Raises `SettingsError` if this user may not list it.
    """
    running = lease.run_id if lease and lease.is_live() else None
    store = destination.store
    ended = [workspace for workspace in destination.unfinished() if workspace.flow_run_id != running]
    parts = [part for workspace in ended for part in workspace.journal_parts() if is_whole(store, part)]
    if not parts:
        return Unfinished(len(ended))
    with sql.connect_in_scratch() as (db, scratch):
        # The next run may adopt and remove them meanwhile.
        files = list(filter(None, (local_if_there(store, part, scratch) for part in parts)))
        if not files:
            return Unfinished(len(ended))
        journal = sql.parquet(*files, by_name=True)
        [(images,)] = db.execute(
            f"SELECT count(DISTINCT source_path) FROM {journal} WHERE status <> 'failed'"
        ).fetchall()
    return Unfinished(len(ended), images)


def _last_run(db: sql.Connection, destination: Destination, file: str, scratch: Path) -> LastRun | None:
    [row] = db.execute(
        "SELECT max(processed_at), count(*), count(*) FILTER (status = 'failed') "
        f"FROM {sql.parquet(destination.store.local(file, scratch))}"
    ).fetchall()
    found = read_record(destination.store, file, whole=False)
    if found is None:
        return None
    run_id, record = found
    ended = row[0]
    if ended is None and record.started_at:  # the run only deleted
        ended = record.started_at + timedelta(seconds=record.seconds or 0)
    return LastRun(run_id, ended, images=row[1], failed=row[2])
