"""Let only the latest of several attempts at a shard write.

A worker that was stopped may go on after another worker has got its shard.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from threading import Lock

from darkroom.tasks.dataset.layout import Workspace
from darkroom.tasks.errors import DarkroomError
from darkroom.tasks.storage.store import Store
from darkroom.tasks.storage.store_errors import reading

LOOK_SECONDS = 2.0
"""How long a look into a bucket, which costs a request, stays valid. An attempt that replaces others waits as long
before it writes anything: by then, each of them that still runs has looked again."""


class ReplacedError(DarkroomError):
    """Another attempt has taken over the shard, or its run has ended."""


@dataclass(slots=True, eq=False)
class Claim:
    """An attempt's right to write a shard's outputs and journal."""

    workspace: Workspace
    shard: int
    """The shard's number."""

    attempt: str
    """The attempt's unique name, `NUMBER-PID-BEGAN`; BEGAN is in nanoseconds since the epoch."""

    resumed: bool = False
    """Whether an earlier attempt has begun the shard."""

    _looked_at: float = float("-inf")
    _lock: Lock = field(default_factory=Lock)

    def check(self, *, look: bool = False) -> None:
        """Check that the claim still holds; call this right before each write.

        Args:
            look: whether to look in any case; otherwise a look into a bucket stays valid for `LOOK_SECONDS`.

        Raises:
            ReplacedError: the claim no longer holds.
            SettingsError: this user may not list the attempts.
        """
        with self._lock:
            if look or not self.workspace.store.is_remote or _now() - self._looked_at >= LOOK_SECONDS:
                self.look()

    def look(self) -> set[str]:
        """Return the other attempts at the shard that have begun; raise what `check` raises."""
        now = _now()
        with reading():
            folder = self.workspace.begun_folder(self.shard)
            attempts = {name for name in self.workspace.store.children(folder) if name[:1].isdigit()}
        if self.attempt not in attempts or self.attempt != max(attempts, key=_order):
            raise ReplacedError(
                f"Run {self.workspace.run_id} has ended, or has given shard {self.shard + 1} to another worker, which "
                "goes on from what this one has finished."
            )
        self._looked_at = now
        return attempts - {self.attempt}


def claim_shard(workspace: Workspace, shard: int, attempt: str) -> Claim:
    """Write an attempt's marker durably, after which earlier attempts at the shard can write no more.

    Raises:
        ReplacedError: a later attempt has begun.
        SettingsError: this user may not list the attempts.
        StorageError: the marker can't be written.
    """
    # Unconditionally: a worker that is stopped while it holds a lock would block the others.
    workspace.store.put(f"{workspace.begun_folder(shard)}/{attempt}", b"", durable=True)
    claim = Claim(workspace, shard, attempt)
    claim.resumed = bool(claim.look())
    if claim.resumed:
        let_attempts_end(workspace.store)
    return claim


def let_attempts_end(store: Store) -> None:
    """Wait until attempts that have just lost their claims have looked, and so write no more."""
    if store.is_remote:
        time.sleep(LOOK_SECONDS)


def _now() -> float:
    """Return seconds that go on while this process is stopped, and, on Linux, while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _order(attempt: str) -> tuple[int, ...]:
    """Return an attempt's number and its begin: Dask may run one attempt on several workers in turn."""
    number, *_, began = attempt.split("-")
    return int(number), int(began)
