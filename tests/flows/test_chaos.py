"""A short part of `make chaos`: kill something, run again, and find what an undisturbed run makes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chaos import Chaos, chaos
from harness import Api
from moments import Moment

STRUCK_ONCE_JOURNALLED = {"flow"}
"""In the middle of a shard, of which a part is in the journal; the others at a random moment."""

KILLED = ["flow", "server", "scheduler"]
"""Workers are lost in `test_lifetime.py`, `test_window.py` and `test_poison.py`; and a flow takes its group with it."""


@pytest.fixture(scope="module")
def trials(api: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chaos]:
    with chaos(tmp_path_factory.mktemp("chaos"), images=450, slow=60, seed=1, api=api) as prepared:
        yield prepared


@pytest.mark.parametrize("victim", KILLED)
def test_after_a_kill_the_next_run_ends_as_an_undisturbed_one(trials: Chaos, victim: str):
    once_journalled = victim in STRUCK_ONCE_JOURNALLED

    outcome = trials.trial(victim, Moment("journal") if once_journalled else None)

    assert outcome.problems == []
    assert outcome.run.struck
    assert outcome.run.journalled or not once_journalled
