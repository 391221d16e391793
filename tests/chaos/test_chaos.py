"""A short version of `make chaos`: kill something, run again, and compare with an undisturbed run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.chaos import Chaos, chaos
from tests.chaos.moments import Moment
from tests.harness import Api

pytestmark = pytest.mark.slow

KILLED_ONCE_JOURNALLED = {"flow"}
"""Victims to kill once a shard is partly in the journal; the others are killed at a random moment."""

VICTIMS = ["flow", "server", "scheduler"]
"""Victims of this test. Other tests kill workers: `test_lifetime.py`, `test_window.py`, `test_poison.py`."""


@pytest.fixture(scope="module")
def trials(api: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chaos]:
    with chaos(tmp_path_factory.mktemp("chaos"), images=450, slow=60, seed=1, api=api) as prepared:
        yield prepared


@pytest.mark.parametrize("victim", VICTIMS)
def test_the_run_after_a_kill_ends_like_an_undisturbed_one(trials: Chaos, victim: str):
    once_journalled = victim in KILLED_ONCE_JOURNALLED

    outcome = trials.trial(victim, Moment("journal") if once_journalled else None)

    assert outcome.problems == []
    assert outcome.run.killed
    assert outcome.run.journalled or not once_journalled
