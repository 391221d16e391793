"""Thousands of damaged and hostile files: an output or a code of the closed list, in bounded memory, and silence.

`make fuzz` goes on where these stop.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.imaging import transform
from tasks.imaging.limits import memory_bound
from tests.fuzz import trial
from tests.fuzz.__main__ import Tally
from tests.fuzz.bombs import bombs
from tests.fuzz.cases import MAX_PIXELS, RECIPES, Case, fixed_cases, random_case
from tests.fuzz.mutate import ACCIDENTS, ATTACKS
from tests.fuzz.runner import Work, outcomes
from tests.fuzz.samples import samples
from tests.tasks.reference import run

PROCESSES = 2
MUTANTS = 10_000
SEED = 2026

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="a process can't ask for its own peak of memory here"
)


def tried(work):
    """What comes of cases, in processes of their own whose memory is limited."""
    parts = [replace(work, first=work.first + i, step=PROCESSES) for i in range(PROCESSES)]
    with ThreadPoolExecutor(PROCESSES) as pool:
        return [outcome for part in pool.map(lambda part: list(outcomes(part)), parts) for outcome in part]


def problems(found):
    return {outcome.name: outcome.problem for outcome in found if outcome.problem}


@pytest.mark.parametrize("name", samples())
def test_what_the_mutants_are_bred_from_is_healthy(name):
    result = run(samples()[name], width=20, height=20)
    assert result.warnings == () and result.facts.format == name.partition("/")[0]


def test_whole_files_cut_files_and_bombs():
    found = tried(Work(seed=None))
    assert problems(found) == {}
    assert {outcome.name for outcome in found} == {case.name for case in fixed_cases()}
    codes = {outcome.name: outcome.code for outcome in found}
    assert {name: codes[f"{name}, recipe 0"] for name in bombs()} == {name: code for name, (_, code) in bombs().items()}


def test_mutants():
    found = tried(Work(SEED, last=MUTANTS))
    assert problems(found) == {} and len(found) == MUTANTS
    assert {outcome.format for outcome in found} == {name.partition("/")[0] for name in samples()}
    codes = {outcome.code for outcome in found}
    assert {"ok", "ok truncated", "decode.truncated", "decode.corrupt", "decode.too_many_pixels"} <= codes


def test_a_seed_and_a_number_make_the_same_case_again():
    cases = [random_case(SEED, number) for number in range(300)]
    assert cases == [random_case(SEED, number) for number in range(300)]
    assert len({case.data for case in cases}) > 280
    assert all(mutator.__name__ in " ".join(case.name for case in cases) for mutator in (*ACCIDENTS, *ATTACKS))


def a_case(**changes):
    data = samples()["png/rgb"]
    return replace(Case("png/rgb", "png", data, 0, data), **changes)


def test_what_must_not_be_is_noticed(monkeypatch):
    def problem(changed, **changes):
        with monkeypatch.context() as patch:
            patch.setattr(trial, "transform", changed)
            return trial.attempt(a_case(**changes)).problem or ""

    def fail(*_):
        raise KeyError("what nobody thought of")

    def waste(data, recipe, max_pixels):
        assert bytearray(b"1") * (memory_bound(len(data), max_pixels) + (8 << 20))
        return transform(data, recipe, max_pixels)

    def lie(**changes):
        return lambda *arguments: replace(transform(*arguments), **changes)

    facts = transform(samples()["png/rgb"], RECIPES[0], MAX_PIXELS).facts
    assert problem(transform) == ""
    assert "KeyError" in problem(fail)
    assert "MB of memory" in problem(waste)
    assert "no row can hold" in problem(lie(facts=replace(facts, frames=1 << 31)))
    assert "said to be 9" in problem(lie(width=9))
    assert "pixels were lost" in problem(transform, data=samples()["png/rgba"])
    with monkeypatch.context() as patch:
        patch.setattr(trial, "_sound", iter((0, 1)).__next__)
        assert problem(transform) == "something was printed"


def test_a_case_that_kills_its_process_is_noticed_and_the_others_go_on():
    found = list(outcomes(Work(SEED, last=6, die_at=3)))
    assert [outcome.number for outcome in found] == [0, 1, 2, 3, 4, 5]
    assert problems(found) == {random_case(SEED, 3).name: "killed by SIGSEGV"}


def test_the_table_of_a_long_run():
    tally = Tally()
    for outcome in outcomes(Work(SEED, last=50)):
        tally.add(outcome, "odd" if outcome.number == 7 else None)
    head, *rows = tally.table().splitlines()
    assert "jpeg2000" in head and len(tally.found) == 1 and len(tally.slowest) == 5
    assert "decode.truncated" in {row.split()[0] for row in rows}
    assert sum(int(cell) for row in rows for cell in row.split()[1:] if cell != "-") == 50
