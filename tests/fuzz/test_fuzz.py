"""Thousands of damaged and hostile files: each gives an output or an error code, in bounded memory and time.

`make fuzz` tries more.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from darkroom.tasks.errors import ErrorCode, ImageError
from darkroom.tasks.imaging.transform import transform
from tests.fuzz import trial
from tests.fuzz.__main__ import Tally
from tests.fuzz.bombs import bombs
from tests.fuzz.cases import MAX_PIXELS, RECIPES, Case, fixed_cases, random_case
from tests.fuzz.mutate import ACCIDENTS, ATTACKS
from tests.fuzz.runner import outcomes
from tests.fuzz.samples import samples
from tests.tasks.imaging.reference import run

PROCESSES = 2
MUTANTS = 10_000
SEED = 2026

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="this system does not report a process's peak of memory"
)


def tried(seed, last=1 << 60):
    return [outcome for _, outcome in outcomes(seed, PROCESSES, last=last)]


def problems(found):
    return {outcome.name: outcome.problem for outcome in found if outcome.problem}


@pytest.mark.parametrize("name", samples())
def test_samples_are_healthy(name):
    result = run(samples()[name], width=20, height=20)
    assert result.warnings == () and result.facts.format == name.partition("/")[0]


def test_fixed_cases():
    found = tried(None)
    assert problems(found) == {}
    assert {outcome.name for outcome in found} == {case.name for case in fixed_cases()}
    codes = {outcome.name: outcome.code for outcome in found}
    assert {name: codes[f"{name}, recipe 0"] for name in bombs()} == {name: code for name, (_, code) in bombs().items()}


@pytest.mark.slow
def test_mutants():
    found = tried(SEED, MUTANTS)
    assert problems(found) == {} and len(found) == MUTANTS
    assert {outcome.format for outcome in found} == {name.partition("/")[0] for name in samples()}
    codes = {outcome.code for outcome in found}
    assert {"ok", "ok truncated", "decode.truncated", "decode.corrupt", "decode.too_many_pixels"} <= codes


def test_a_seed_and_a_number_always_make_the_same_case():
    cases = [random_case(SEED, number) for number in range(300)]
    assert cases == [random_case(SEED, number) for number in range(300)]
    assert len({case.data for case in cases}) > 280
    assert all(mutator.__name__ in " ".join(case.name for case in cases) for mutator in (*ACCIDENTS, *ATTACKS))


def test_a_damaged_file_gives_the_same_bytes_or_error_every_time():
    def result(case):
        try:
            return transform(case.data, RECIPES[case.recipe], MAX_PIXELS).data
        except ImageError as error:
            return error.code, error.message

    for number in range(300):
        assert result(random_case(SEED, number)) == result(random_case(SEED, number)), number


def a_case(**changes):
    data = samples()["png/rgb"]
    return replace(Case("png/rgb", "png", data, 0, data), **changes)


def test_problems_are_detected():
    whole = a_case()
    made = transform(whole.data, RECIPES[0], MAX_PIXELS)

    def problem(answer, **changes):
        return trial.judge(answer, a_case(**changes))[1] or ""

    assert problem(made) == ""
    assert "unexpected KeyError" in problem(ImageError(ErrorCode.DECODE_CORRUPT, "unexpected KeyError"))
    assert "a path" in problem(ImageError(ErrorCode.DECODE_CORRUPT, "no /usr/lib"))
    assert "code write.failed" in problem(ImageError(ErrorCode.WRITE_FAILED, "x"))
    assert "do not fit into a row" in problem(replace(made, facts=replace(made.facts, frames=1 << 31)))
    assert "stated as 9" in problem(replace(made, width=9))
    other = transform(samples()["png/rgba"], RECIPES[0], MAX_PIXELS)
    assert "pixels were lost" in problem(other, data=samples()["png/rgba"])


def test_memory_is_measured(monkeypatch):
    monkeypatch.setattr(trial.Orders, "memory_for", lambda *_: 1 << 28)
    large = samples()["png/rgb"]
    outcome = trial.attempt(a_case(data=large))
    assert outcome.problem is None and 0 <= outcome.seconds < trial.MAX_IMAGE_SECONDS
    monkeypatch.setattr(trial, "_memory", lambda _, field: (1 << 30) * (field == "VmHWM"))
    assert "MB of memory" in trial.attempt(a_case(data=large)).problem


def test_the_table_of_a_long_run():
    tally = Tally()
    for _, outcome in outcomes(SEED, 1, last=50):
        tally.add(replace(outcome, problem="odd" if outcome.number == 7 else None))
    head, *rows = tally.table().splitlines()
    assert "jpeg2000" in head and len(tally.found) == 1 and len(tally.slowest) == 5
    assert "decode.truncated" in {row.split()[0] for row in rows}
    assert sum(int(cell) for row in rows for cell in row.split()[1:] if cell != "-") == 50
