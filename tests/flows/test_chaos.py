"""A short part of `make chaos`: kill something, run again, and find what an undisturbed run makes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chaos import VICTIMS, Chaos, chaos
from harness import Api

SURVIVED = {"worker", "workers", "server"}
"""Without these a run goes on: it gets others."""


@pytest.fixture(scope="module")
def trials(api: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chaos]:
    with chaos(tmp_path_factory.mktemp("chaos"), images=600, seed=1, api_url=api.url) as prepared:
        yield prepared


@pytest.mark.parametrize("victim", VICTIMS)
def test_after_a_kill_the_next_run_ends_as_an_undisturbed_one(trials: Chaos, victim: str):
    outcome = trials.trial(victim)

    assert outcome.code is not None, "it has to end"
    if victim in SURVIVED:
        assert outcome.code == 0
    assert outcome.problem == ""
