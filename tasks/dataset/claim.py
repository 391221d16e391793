"""Which of several attempts at a shard may write: the latest that began.

A worker that stands still may go on after another has been given its shard.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from darkroom.tasks.dataset.layout import Workspace
from darkroom.tasks.errors import DarkroomError
from darkroom.tasks.storage.store import ABSENT
from darkroom.tasks.storage.store_errors import Conflict, NotFound, reading


class ReplacedError(DarkroomError):
    """Another attempt has taken over the shard, or its run has ended."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right of one attempt to write outputs of a shard, and its journal."""

    workspace: Workspace
    shard: int
    """The shard's number."""

    attempt: str
    """A name that no other attempt has, which begins with the attempt's number in three digits and a dash."""

    resumed: bool = False
    """Whether another attempt has begun the shard before."""

    def check(self) -> None:
        """Make sure that the claim still holds; to be called right before something is written.

        Raises:
            ReplacedError: it doesn't.
            SettingsError: this user may not look.
        """
        with suppress(NotFound), reading():
            if bytes(self.workspace.store.get(self.workspace.begun_marker(self.shard)).data) == self.attempt.encode():
                return
        raise self.replaced()

    def replaced(self) -> ReplacedError:
        """Return the error of an attempt that may not write."""
        return ReplacedError(
            f"Run {self.workspace.run_id} has ended, or has given shard {self.shard + 1} to another worker, which goes "
            "on from what this one has finished."
        )


def claim_shard(workspace: Workspace, shard: int, attempt: str) -> Claim:
    """Note durably that an attempt is about to write outputs of a shard; earlier attempts may then write no more.

    Raises:
        ReplacedError: a later attempt has begun.
        Conflict: another attempt is just beginning.
        StorageError: the note can't be written.
    """
    store, marker = workspace.store, workspace.begun_marker(shard)
    claim = Claim(workspace, shard, attempt)
    try:
        store.put(marker, attempt.encode(), expected=ABSENT, durable=True)
    except Conflict:
        holder = store.get(marker)
        if _number(bytes(holder.data).decode()) > _number(attempt):
            raise claim.replaced() from None
        store.put(marker, attempt.encode(), expected=holder.version, durable=True)
        return Claim(workspace, shard, attempt, resumed=True)
    return claim


def _number(attempt: str) -> int:
    return int(attempt.partition("-")[0])
