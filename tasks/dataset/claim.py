"""Let only the latest of several attempts at a shard write.

A worker that was stopped may go on after another worker has got its shard.
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
    """An attempt's right to write a shard's outputs and journal."""

    workspace: Workspace
    shard: int
    """The shard's number."""

    attempt: str
    """The attempt's unique name, `NUMBER-PID-BEGAN`; it began so many nanoseconds after the epoch."""

    resumed: bool = False
    """Whether an earlier attempt has begun the shard."""

    def check(self) -> None:
        """Make sure that the claim still holds; to be called right before each write.

        Raises:
            ReplacedError: it doesn't.
            SettingsError: this user may not list the attempts.
        """
        with reading():
            attempts = _attempts(self.workspace, self.shard)
        if self.attempt not in attempts or self.attempt != max(attempts, key=_order):
            raise ReplacedError(
                f"Run {self.workspace.run_id} has ended, or has given shard {self.shard + 1} to another worker, which "
                "goes on from what this one has finished."
            )


def claim_shard(workspace: Workspace, shard: int, attempt: str) -> Claim:
    """Write an attempt's marker durably, after which earlier attempts at the shard can write no more.

    Raises:
        ReplacedError: a later attempt has begun.
        SettingsError: this user may not list the attempts.
        StorageError: the marker can't be written.
    """
    # Unconditionally: a worker that is stopped while it holds a lock would block the others.
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
    """Return an attempt's number and its begin: Dask may run one attempt on several workers in turn."""
    number, *_, began = attempt.split("-")
    return int(number), int(began)
