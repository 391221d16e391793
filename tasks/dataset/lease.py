"""One run at a time per destination: a lease with a heartbeat."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import Field, TypeAdapter, ValidationError

from darkroom.tasks.dataset.layout import Destination
from darkroom.tasks.errors import LeaseError, SettingsError
from darkroom.tasks.storage.durable import reading, write_durably, writing

HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 60.0
"""A lease whose heartbeat stands still for so long belongs to a run that died, and may be taken over."""

LOOKS = 20
"""So often, in that time, it is looked whether a heartbeat stands still."""

Seconds: TypeAlias = Annotated[float, Field(ge=0, lt=253_402_300_800)]  # no calendar goes beyond the year 9999

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lease:
    """Who holds a destination. Times are seconds since the epoch."""

    run_id: str
    host: str
    pid: int
    process: str
    since: Seconds
    heartbeat: Seconds

    def is_live(self) -> bool:
        """Say whether the holder is still at work, as far as one look tells.

        Of a process on this machine that is certain. Of any other it is not: its machine's clock may be wrong, or
        this one's.
        """
        if self.is_near():
            return _process_identity(self.pid) == self.process
        return 0 <= time.time() - self.heartbeat < STALE_SECONDS

    def is_near(self) -> bool:
        """Say whether the holder is, or was, a process on this machine."""
        return _machine(self.process) == _machine(_process_identity(os.getpid()))

    def describe(self) -> str:
        """Say in a few words who holds the destination."""
        since = datetime.fromtimestamp(self.since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"run {self.run_id} on {self.host} (process {self.pid}) since {since}"


_LEASE = TypeAdapter(Lease)


def read_lease(destination: Destination) -> Lease | None:
    """Return the lease that lies in a destination, live or not; what isn't a lease is none.

    Raises:
        SettingsError: this user may not read it, or a folder is in its place.
    """
    try:
        with reading():
            return _LEASE.validate_json(_lease_path(destination).read_bytes(), strict=True)
    except (FileNotFoundError, ValidationError):
        return None


class HeldLease:
    """A lease that this process holds, as far as it knows."""

    def __init__(self, destination: Destination, lease: Lease, taken_from: Lease | None = None) -> None:
        self.destination = destination
        self.lease = lease
        self.taken_from = taken_from
        """The lease of a holder that died, if it was taken over."""

        self._lost: LeaseError | None = None

    def lose(self, loss: LeaseError) -> None:
        """Note that the lease is lost; `check_noted` raises it."""
        self._lost = loss

    def check_noted(self) -> None:
        """Make sure, while work goes on, that no heartbeat has found the lease lost; looks at no file.

        Raises:
            LeaseError: one has, with what `check` says.
        """
        if self._lost:
            raise LeaseError(str(self._lost))

    def check(self) -> None:
        """Make sure, before something is published, that nobody took the lease over.

        Raises:
            LeaseError: somebody did, because this process could not write its heartbeat for too long.
        """
        holder = read_lease(self.destination)
        if not holder or not self.is_mine(holder):
            taker = f"taken over by {holder.describe()}" if holder else "removed"
            raise LeaseError(
                f"The lease of {self.destination.root} was {taker}; this run published nothing more. "
                "What it finished is in its journal, which the next run adopts."
            )

    def is_mine(self, holder: Lease) -> bool:
        """Say whether a lease that was read is this one, heartbeats aside."""
        return (holder.process, holder.since) == (self.lease.process, self.lease.since)


@contextmanager
def hold_lease(destination: Destination, run_id: str) -> Iterator[HeldLease]:
    """Hold the destination for a run; a lease whose holder died is taken over.

    Of a holder on another machine that is known only after `STALE_SECONDS` in which its heartbeat has stood still.

    Raises:
        LeaseError: another run holds it.
        SettingsError: it can't be told who does.
        DestinationError: the lease can't be written.
    """
    with writing(destination.root):
        held = _acquire(destination, run_id)
    stopped = threading.Event()
    beat = threading.Thread(target=_beat, args=(held, stopped), name="lease", daemon=True)
    beat.start()
    try:
        yield held
    finally:
        stopped.set()
        beat.join()
        _release(held)


def _acquire(destination: Destination, run_id: str) -> HeldLease:
    now = time.time()
    pid = os.getpid()
    lease = Lease(run_id, socket.gethostname(), pid, _process_identity(pid) or "", since=now, heartbeat=now)
    silent: Lease | None = None
    while isinstance(taken := _take(destination, lease, silent), Lease):
        if taken.is_live() or (silent := _watch(destination, taken)) not in {taken, None}:
            raise LeaseError(
                f"{destination.root} is in use by {taken.describe()}. Wait for it to end, or use another destination. "
                f"If that run is dead, its lease can be taken over {STALE_SECONDS:.0f} s after its last heartbeat."
            )
        lease = replace(lease, heartbeat=time.time())
    return taken


def _take(destination: Destination, lease: Lease, silent: Lease | None) -> HeldLease | Lease:
    """Take the lease, or return that of who has it, if it isn't who is known to be silent."""
    with _exclusive(destination):
        holder = read_lease(destination)
        if holder and holder != silent and (holder.is_live() or not holder.is_near()):
            return holder
        _write(destination, lease)
    return HeldLease(destination, lease, taken_from=holder)


def _watch(destination: Destination, holder: Lease) -> Lease | None:
    """Watch the lease of a holder on another machine; return what it has become, or itself if it stands still.

    Counted in looks: when all of this was stopped for an hour, the holder has not had an hour.
    """
    logger.warning("Watching for %.0f s whether %s is still at work.", STALE_SECONDS, holder.describe())
    seen: Lease | None = holder
    for _ in range(LOOKS):
        time.sleep(STALE_SECONDS / LOOKS)
        if (seen := read_lease(destination)) != holder:
            break
    return seen


def _beat(held: HeldLease, stopped: threading.Event) -> None:
    while not stopped.wait(HEARTBEAT_SECONDS):
        try:
            with _exclusive(held.destination):
                held.check()
                _write(held.destination, replace(held.lease, heartbeat=time.time()))
        except LeaseError as loss:
            logger.exception("The lease is lost.")
            held.lose(loss)
            return
        except (OSError, SettingsError):
            logger.warning("The lease's heartbeat could not be written.", exc_info=True)


def _release(held: HeldLease) -> None:
    with _exclusive(held.destination):
        holder = read_lease(held.destination)
        if holder and held.is_mine(holder):
            _lease_path(held.destination).unlink()


@contextmanager
def _exclusive(destination: Destination) -> Iterator[None]:
    """Let one process at a time look at the lease and change it."""
    destination.work.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(destination.work / "lease.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _lease_path(destination: Destination) -> Path:
    return destination.work / "lease.json"


def _write(destination: Destination, lease: Lease) -> None:
    write_durably(_lease_path(destination), json.dumps(asdict(lease)))


def _process_identity(pid: int) -> str | None:
    """Return what tells a process from every other, before or after it and on any machine.

    `boot|pid namespace|start time`, or None if there is no such process, or (for another process than this
    one) where the system doesn't tell.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return f"{socket.gethostname()}:{pid}:{time.time_ns()}" if pid == os.getpid() else None
    # proc_pid_stat(5), counted from behind the command's name, which may hold anything: the state is
    # field 3, the start time field 22.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else f"{boot}|{namespace}|{fields[19]}"


def _machine(process: str | None) -> str | None:
    """Return the part of a process identity that says where it can be looked up, if it does."""
    machine, bar, _ = (process or "").rpartition("|")
    return machine if bar else f"unknown {process}"
