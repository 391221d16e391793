"""Which of several attempts at a shard may write: the latest that began.

A worker that stands still may go on after another has been given its shard.
"""

from __future__ import annotations

from dataclasses import dataclass

from darkroom.tasks.dataset.layout import Workspace
from darkroom.tasks.errors import DarkroomError
from darkroom.tasks.storage.store_errors import reading


class ReplacedError(DarkroomError):
    """Another attempt has taken over the shard, or its run has ended."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right of one attempt to write outputs of a shard, and its journal."""

    workspace: Workspace
    shard: int
    """The shard's number."""

    attempt: str
    """A name that no other attempt has: its number, its process and when it began, in nanoseconds, with dashes."""

    resumed: bool = False
    """Whether another attempt has begun the shard before."""

    def check(self) -> None:
        """Make sure that the claim still holds; to be called right before something is written.

        Raises:
            ReplacedError: it doesn't.
            SettingsError: this user may not look.
        """
        with reading():
            attempts = _attempts(self.workspace, self.shard)
        if self.attempt not in attempts or self.attempt != max(attempts, key=_order):
            raise ReplacedError(
                f"Run {self.workspace.run_id} has ended, or has given shard {self.shard + 1} to another worker, which "
                "goes on from what this one has finished."
            )


def claim_shard(workspace: Workspace, shard: int, attempt: str) -> Claim:
    """Note durably that an attempt is about to write outputs of a shard; earlier attempts may then write no more.

    Raises:
        ReplacedError: a later attempt has begun.
        SettingsError: this user may not look.
        StorageError: the note can't be written.
    """
    # Written without a condition: a worker that is stopped while it holds a lock would keep others waiting.
    workspace.store.put(f"{workspace.begun_folder(shard)}/{attempt}", b"", durable=True)
    with reading():
        others = set(_attempts(workspace, shard)) - {attempt}
    claim = Claim(workspace, shard, attempt, resumed=bool(others))
    claim.check()
    return claim


def _attempts(workspace: Workspace, shard: int) -> list[str]:
    """Return the names of the attempts at a shard that have begun."""
    return [name for name in workspace.store.children(workspace.begun_folder(shard)) if name[:1].isdigit()]


def _order(attempt: str) -> tuple[int, ...]:
    """Return the attempt's number, and then when it began, for Dask may give one to several workers in turn."""
    number, *_, began = attempt.split("-")
    return int(number), int(began)
