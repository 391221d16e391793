"""Cases: a file, its damage, and a recipe. The same seed and number always give the same case."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from random import Random

from darkroom.tasks.settings import Recipe
from tests.fuzz import mutate
from tests.fuzz.bombs import bombs
from tests.fuzz.samples import HEIGHT, WIDTH, corpus, samples

MAX_PIXELS = 1_000_000
STEPS = 20
"""Each file is cut at 19 places."""

RECIPES = (
    Recipe(width=24, height=20),
    Recipe(width=50, height=60, fit="cover", filter="lanczos", format="png", damage="tolerant"),
    Recipe(width=9, height=60, fit="contain", format="webp", color="gray", damage="tolerant"),
    Recipe(width=40, height=30, fit="inside", upscale=False, filter="cubic", format="png", color="gray"),
    Recipe(width=30, height=100, fit="outside", filter="nearest", format="png", damage="tolerant"),
    Recipe(width=200, height=7, fit="outside", upscale=False, filter="linear", background="#102030"),
    Recipe(width=WIDTH, height=HEIGHT, format="png"),
    Recipe(width=300, height=200, filter="area", format="webp", quality=40),
)


@dataclass(frozen=True)
class Case:
    """One file to transform.

    Args:
        name: unique; contains the seed and the number that make it.
        format: the format of the file before it was damaged.
        data: the file.
        recipe: number of the recipe.
        original: the file before it was damaged, if an accident damaged it; None otherwise.
        cut: whether the only damage is that the end is missing.
    """

    name: str
    format: str
    data: bytes
    recipe: int
    original: bytes | None = None
    cut: bool = False


@cache
def _all_samples(with_corpus: bool) -> dict[str, bytes]:
    return samples() | (corpus() if with_corpus else {})


def fixed_cases(with_corpus: bool = False) -> list[Case]:
    """Return whole files, cut files and bombs: the same every time."""
    cases = []
    files = _all_samples(with_corpus)
    for name, data in files.items():
        cases += [Case(f"{name}, recipe {i}", _kind(name), data, i) for i in range(len(RECIPES))]
    for name, (data, outcome) in bombs().items():
        # A refusal does not depend on the recipe.
        recipes = range(len(RECIPES) if outcome.startswith("ok") else 1)
        cases += [Case(f"{name}, recipe {i}", _kind(name), data, i) for i in recipes]
    for number, (name, data) in enumerate(files.items()):
        for step in range(1, STEPS):
            end, i = max(len(data) * step // STEPS, 1), (number + step) % len(RECIPES)
            cases.append(Case(f"{name}, cut to {end} bytes, recipe {i}", _kind(name), data[:end], i, data, cut=True))
    return cases


def _kind(name: str) -> str:
    return name.partition("/")[0]


def random_case(seed: int, number: int, with_corpus: bool = False) -> Case:
    """Return the seed's case of this number, counted from 0."""
    random = Random(f"{seed}/{number}")
    files = _all_samples(with_corpus)
    name, other = random.choice(list(files)), random.choice(list(files))
    recipe = random.randrange(len(RECIPES))
    if random.random() < 0.3:
        mutators = [random.choice(mutate.ACCIDENTS)]
    else:
        mutators = random.choices(mutate.ATTACKS + mutate.ACCIDENTS, k=random.choice((1, 1, 2, 3)))
    data, by_accident = files[name], mutators[0] in mutate.ACCIDENTS and len(mutators) == 1
    for mutator in mutators:
        data = mutator(random, data, files[other])[: 1 << 20] or b"\0"
    if not by_accident and random.random() < 0.7:
        data = mutate.mend_png(random, data, b"")
    words = ", ".join(mutator.__name__ for mutator in mutators)
    title = f"seed {seed}, case {number}: {name}, {words}, recipe {recipe}"
    cut = mutators == [mutate.truncate]
    return Case(title, _kind(name), data, recipe, files[name] if by_accident else None, cut)
