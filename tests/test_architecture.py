"""Rules that keep the layout true to the architecture: imports, names, lengths and test modules."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
MAX_LINES = 300
PRODUCT = ("flows", "tasks", "deployments")
FILES = sorted(file for folder in PRODUCT for file in (CHECKOUT / folder).rglob("*.py"))
EVERYTHING = [*FILES, *(file for name in ("tests", "benchmarks", "data") for file in (CHECKOUT / name).rglob("*.py"))]
MODULES = [file for file in FILES if file.name not in {"__init__.py", "__main__.py"}]

LAYERS = (
    ("tasks.errors", "tasks.settings", "tasks.patterns", "tasks.wording"),
    ("tasks.storage", "tasks.imaging"),
    ("tasks.dataset",),
    ("tasks.worker", "tasks.reporting"),
    ("tasks",),
    ("flows.runtime",),
    ("flows",),
    ("flows.cli",),
    ("deployments",),
)
"""Packages and modules, the lowest first. A module imports from its own layer and from lower ones."""

FREE_OF_ENGINES = ("tasks.imaging", "tasks.storage", "tasks.settings", "tasks.wording", "tasks.errors")
ENGINES = {"prefect", "prefect_dask", "dask", "distributed"}


def name_of(file: Path) -> str:
    """Return a module's name below `darkroom`."""
    return ".".join(file.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(file: Path) -> Iterator[str]:
    """Yield all names that a file imports, also within functions, except those that only a type checker imports."""
    tree = ast.parse(file.read_bytes())
    skipped = {id(node) for block in ast.walk(tree) if is_type_checking(block) for node in ast.walk(block)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(file)} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


NAMES = {name_of(file) for file in FILES}


def module_of(imported: str) -> str | None:
    """Return the module of the product that an imported name belongs to; None for other packages."""
    name = imported.removeprefix("darkroom.")
    if name == imported:
        return None
    return next(each for each in (name, name.rpartition(".")[0], "") if each in NAMES or not each) or None


GRAPH = {name_of(file): {found for each in imports_of(file) if (found := module_of(each))} for file in FILES}


def layer_of(module: str) -> int:
    """Return the index of a module's layer: of all names in `LAYERS` that are it or contain it, the longest decides."""
    found = [
        (len(name), number)
        for number, layer in enumerate(LAYERS)
        for name in layer
        if module == name or module.startswith(f"{name}.")
    ]
    return max(found)[1]


def test_no_module_imports_from_a_higher_layer():
    upwards = [
        f"{module} imports {imported}"
        for module, found in GRAPH.items()
        for imported in found
        if layer_of(imported) > layer_of(module)
    ]
    assert upwards == []


def test_there_is_no_import_cycle():
    graph = {module: found - {module} for module, found in GRAPH.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"an import cycle: {error.args[1]}")


@pytest.mark.parametrize("package", FREE_OF_ENGINES)
def test_packages_free_of_engines_import_neither_prefect_nor_dask(package: str):
    files = [file for file in FILES if name_of(file) == package or name_of(file).startswith(f"{package}.")]
    assert files
    found = {f"{name_of(file)}: {each}" for file in files for each in imports_of(file) if each.split(".")[0] in ENGINES}
    assert found == set()


def test_product_modules_are_imported_only_as_parts_of_darkroom():
    own = {f"{file}: {each}" for file in EVERYTHING for each in imports_of(file) if each.split(".")[0] in PRODUCT}
    assert own == set()


def test_no_two_modules_have_the_same_name():
    names = Counter(file.name for file in MODULES)
    assert [name for name, count in names.items() if count > 1] == []


def test_no_module_has_more_lines_than_allowed():
    assert [name_of(file) for file in EVERYTHING if len(file.read_text().splitlines()) > MAX_LINES] == []


def test_every_module_has_a_test_module():
    missing = [
        str(test)
        for file in MODULES
        if not (
            CHECKOUT / (test := Path("tests") / file.relative_to(CHECKOUT).with_name(f"test_{file.name}"))
        ).is_file()
    ]
    assert missing == []
