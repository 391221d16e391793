"""Which of several attempts at a shard may write: the latest that began.

A worker that stands still may go on after another has been given its shard.
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
"""In a bucket, where each look is a request, one holds for so long. An attempt that replaces others waits as long
before it writes anything: by then, each of them that still runs has looked again."""


class ReplacedError(DarkroomError):
    """Another attempt has taken over the shard, or its run has ended."""


@dataclass(slots=True, eq=False)
class Claim:
    """The right of one attempt to write outputs of a shard, and its journal."""

    workspace: Workspace
    shard: int
    """The shard's number."""

    attempt: str
    """A name that no other attempt has: its number, its process and when it began, in nanoseconds, with dashes."""

    resumed: bool = False
    """Whether another attempt has begun the shard before."""

    _looked_at: float = float("-inf")
    _lock: Lock = field(default_factory=Lock)

    def check(self, *, look: bool = False) -> None:
        """Make sure that the claim still holds; to be called right before something is written.

        Args:
            look: whether to look in any case; otherwise a look into a bucket holds for `LOOK_SECONDS`.

        Raises:
            ReplacedError: it doesn't.
            SettingsError: this user may not look.
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
    """Note durably that an attempt is about to write outputs of a shard; earlier attempts may then write no more.

    Raises:
        ReplacedError: a later attempt has begun.
        SettingsError: this user may not look.
        StorageError: the note can't be written.
    """
    # Written without a condition: a worker that is stopped while it holds a lock would keep others waiting.
    workspace.store.put(f"{workspace.begun_folder(shard)}/{attempt}", b"", durable=True)
    claim = Claim(workspace, shard, attempt)
    claim.resumed = bool(claim.look())
    if claim.resumed:
        let_attempts_end(workspace.store)
    return claim


def let_attempts_end(store: Store) -> None:
    """Wait until attempts whose claim was just taken from them have looked, and so write no more."""
    if store.is_remote:
        time.sleep(LOOK_SECONDS)


def _now() -> float:
    """Return seconds that go on while this process is stopped, and, on Linux, while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _order(attempt: str) -> tuple[int, ...]:
    """Return the attempt's number, and then when it began, for Dask may give one to several workers in turn."""
    number, *_, began = attempt.split("-")
    return int(number), int(began)
