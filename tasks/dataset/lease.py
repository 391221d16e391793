"""One run at a time per destination: a lease with a heartbeat."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, TypeAdapter, ValidationError

from darkroom.tasks.dataset.layout import WORK, Destination
from darkroom.tasks.errors import DarkroomError, DestinationError, InUseError, LeaseError
from darkroom.tasks.storage.store import ABSENT, Absent, Version
from darkroom.tasks.storage.store_errors import MOVED, Conflict, NotFound, StorageError, reading, writing

LEASE = f"{WORK}/lease.json"
"""Empty when released: it is only ever replaced conditionally, which every store supports."""

HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 60.0
"""After this long without a heartbeat, the holder is dead, and the lease may be taken over."""

LOOKS = 20
"""Number of checks for a heartbeat within `STALE_SECONDS`."""

Seconds: TypeAlias = Annotated[float, Field(ge=0, lt=253_402_300_800)]  # no calendar goes beyond the year 9999

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lease:
    """The holder of a destination. Times are seconds since the epoch."""

    run_id: str
    host: str
    pid: int
    process: str
    since: Seconds
    heartbeat: Seconds

    def is_live(self) -> bool:
        """Return whether the holder is still running, as far as one look shows.

        For a process that is near this is certain; for any other, the clocks may differ.
        """
        if self.is_near():
            return _process_identity(self.pid) == self.process
        return 0 <= time.time() - self.heartbeat < STALE_SECONDS

    def is_near(self) -> bool:
        """Return whether the holder is or was a process of this machine that this user can see."""
        return _machine(self.process) == _machine(_process_identity(os.getpid())) and not _is_hidden(self.pid)

    def describe(self) -> str:
        """Return a few words about the holder."""
        return f"run {self.run_id} on {self.host} (process {self.pid}) since {self.since_utc()}"

    def since_utc(self) -> str:
        """Return since when it is held."""
        return datetime.fromtimestamp(self.since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


_LEASE = TypeAdapter(Lease)


def read_lease(destination: Destination) -> Lease | None:
    """Return the lease of a destination, live or not; None if there is none or it is unreadable.

    Raises:
        SettingsError: this user may not read it, or a folder is in its place.
    """
    return _read(destination)[0]


def _read(destination: Destination) -> tuple[Lease | None, Version | Literal[Absent.ABSENT]]:
    try:
        with reading():
            found = destination.store.get(LEASE)
    except NotFound:
        return None, ABSENT
    with suppress(ValidationError):
        return _LEASE.validate_json(bytes(found.data), strict=True), found.version
    return None, found.version


def _write(destination: Destination, lease: Lease, expected: Version | Literal[Absent.ABSENT]) -> None:
    destination.store.put(LEASE, json.dumps(asdict(lease)).encode(), expected=expected, durable=True)


class HeldLease:
    """A lease that this process holds, as far as it knows."""

    def __init__(self, destination: Destination, lease: Lease, taken_from: Lease | None = None) -> None:
        self.destination = destination
        self.lease = lease
        self.taken_from = taken_from
        """The lease of a holder that died, if it was taken over."""

        self._loss: LeaseError | DestinationError | None = None

    def lose(self, loss: LeaseError | DestinationError) -> None:
        """Record that the lease is lost, for `check_noted` to raise."""
        self._loss = loss

    def check_noted(self) -> None:
        """Raise the error of the heartbeat that found the lease lost, if one did; read no file."""
        if self._loss:
            raise type(self._loss)(*self._loss.args)

    def check(self) -> None:
        """Read the lease, to be sure that it is still held before something is published.

        Raises:
            LeaseError: another run took it over.
            DestinationError: it is missing, alone or with the whole destination.
        """
        self._check(read_lease(self.destination))

    def _check(self, holder: Lease | None) -> None:
        location = self.destination.location
        if not holder:
            raise DestinationError(location, f"{LEASE} is missing", MOVED)
        if not self.is_mine(holder):
            raise LeaseError(
                f"The lease of {location} was taken over by {holder.describe()}; this run published nothing more. "
                "What it finished is in its journal, which the next run adopts."
            )

    def renew(self) -> None:
        """Write a heartbeat.

        Raises:
            LeaseError, DestinationError: the lease is lost, as of `check`.
            Conflict: another run is just taking it over.
        """
        holder, version = _read(self.destination)
        self._check(holder)
        _write(self.destination, replace(self.lease, heartbeat=time.time()), version)

    def give_back(self) -> None:
        """Release the lease, unless another run holds it."""
        try:
            holder, version = _read(self.destination)
            if holder and self.is_mine(holder):
                self.destination.store.put(LEASE, b"", expected=version, durable=True)
        except (StorageError, DarkroomError):
            logger.warning("The lease could not be released.", exc_info=True)

    def is_mine(self, holder: Lease) -> bool:
        """Return whether a lease is this one, whatever its heartbeat."""
        return (holder.process, holder.since) == (self.lease.process, self.lease.since)


@contextmanager
def hold_lease(destination: Destination, run_id: str) -> Iterator[HeldLease]:
    """Hold the destination for a run; take over the lease of a holder that died.

    A holder on another machine counts as dead after `STALE_SECONDS` without a new heartbeat.

    Raises:
        InUseError: another run holds it.
        SettingsError: the lease can't be read.
        DestinationError: the lease can't be written.
    """
    with writing(destination.location):
        destination.store.create()
        held = _acquire(destination, run_id)
    stopped = threading.Event()
    beat = threading.Thread(target=_beat, args=(held, stopped), name="lease", daemon=True)
    beat.start()
    try:
        yield held
    finally:
        stopped.set()
        beat.join()
        held.give_back()


def _acquire(destination: Destination, run_id: str) -> HeldLease:
    now = time.time()
    pid = os.getpid()
    lease = Lease(run_id, socket.gethostname(), pid, _process_identity(pid) or "", since=now, heartbeat=now)
    silent: Lease | None = None
    while True:
        holder, version = _read(destination)
        if holder and holder != silent and (holder.is_live() or not holder.is_near()):
            if holder.is_live() or (silent := _watch(destination, holder)) not in {holder, None}:
                raise InUseError(
                    f"{destination.location} is in use by {holder.describe()}. Wait for it to end, or use another "
                    "destination. If that run is dead, the same command takes its place once "
                    f"{STALE_SECONDS:.0f} s have passed since its last heartbeat."
                )
            lease = replace(lease, heartbeat=time.time())
            continue
        with suppress(Conflict):  # another run was quicker: look again
            _write(destination, lease, version)
            return HeldLease(destination, lease, taken_from=holder)


def _watch(destination: Destination, holder: Lease) -> Lease | None:
    """Wait up to `STALE_SECONDS` for a holder's lease to change; return the lease at the end.

    Checks are counted, not time: if this process was stopped for an hour, the holder did not have an hour.
    """
    logger.warning("Watching for %.0f s whether %s is still running.", STALE_SECONDS, holder.describe())
    seen: Lease | None = holder
    for _ in range(LOOKS):
        time.sleep(STALE_SECONDS / LOOKS)
        if (seen := read_lease(destination)) != holder:
            break
    return seen


def _beat(held: HeldLease, stopped: threading.Event) -> None:
    while not stopped.wait(HEARTBEAT_SECONDS):
        try:
            held.renew()
        except (LeaseError, DestinationError) as loss:
            logger.exception("The lease is lost.")
            held.lose(loss)
            return
        except (StorageError, DarkroomError):
            logger.warning("The lease's heartbeat could not be written.", exc_info=True)


def _process_identity(pid: int) -> str | None:
    """Return `boot|pid namespace|start time`, which identifies a process on all machines and at all times.

    None if there is no such process, or the system doesn't show it.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return f"{socket.gethostname()}:{pid}:{time.time_ns()}" if pid == os.getpid() else None
    # proc_pid_stat(5): after the command's name, which may hold anything, come field 3, the state, and 22, the start.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else f"{boot}|{namespace}|{fields[19]}"


def _is_hidden(pid: int) -> bool:
    """Return whether a process exists that /proc, mounted with `hidepid`, does not show to this user."""
    with suppress(OSError):
        Path(f"/proc/{pid}/stat").read_text()
        return False
    try:
        os.kill(pid, 0)  # sends nothing
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def _machine(process: str | None) -> str | None:
    """Return the boot and pid namespace of a process identity."""
    machine, bar, _ = (process or "").rpartition("|")
    return machine if bar else f"unknown {process}"
