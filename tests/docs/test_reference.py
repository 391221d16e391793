"""The documentation of settings, columns, codes and files agrees with the code."""

from __future__ import annotations

import re
import typing
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import typer
import yaml
from harness import CHECKOUT
from markdown_pages import PAGES, Page, names

from darkroom.flows.cli.commands import app
from darkroom.tasks.dataset.manifest import SCHEMA, SCHEMA_VERSION
from darkroom.tasks.errors import RETRIED_NEXT_RUN, TRANSIENT, ErrorCode
from darkroom.tasks.reporting.findings import FINDINGS_SCHEMA, FindingKind
from darkroom.tasks.settings import Compute, Recipe, Rules, Settings
from darkroom.tasks.storage.naming import IMAGE_SUFFIXES

README_LINES = 150

PAGE = {page.name.removeprefix("docs/").removesuffix(".md"): page for page in PAGES if page.name != "docs/README.md"}
INDEX = Page("docs/README.md")

OTHER_OPTIONS = {"--help", "--pool", "--rows", "--watch"}
"""Options in the prose that belong to other commands than `darkroom`, or that every command has."""


def test_the_readme_is_short():
    assert len(PAGE["README"].text.splitlines()) <= README_LINES


@pytest.mark.parametrize("page", [*PAGES, Page("SECURITY.md")], ids=lambda page: page.name)
def test_links_have_targets(page: Page):
    for link in page.links:
        path, _, anchor = link.partition("#")
        target = (CHECKOUT / page.name).parent / path if path else CHECKOUT / page.name
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            found = Page(str(target.resolve().relative_to(CHECKOUT))).anchors
            assert anchor in found, f"{page.name}: {link}; there are {sorted(found)}"


@pytest.mark.parametrize("index", [PAGE["README"], INDEX], ids=lambda page: page.name)
def test_every_page_is_linked(index: Page):
    linked = {Path(link.partition("#")[0]).name for link in index.links}
    assert {Path(page.name).name for page in PAGES} - {"README.md"} <= linked


@pytest.mark.parametrize("model", [Recipe, Rules, Compute])
def test_settings_are_documented_with_their_defaults(model: type[Settings]):
    documented = {
        row[0].strip("`"): row[1].strip("`").replace(",", "") for row in PAGE["settings"].rows(model.__name__)
    }
    fields = {name: field.get_default(call_default_factory=True) for name, field in model.model_fields.items()}
    assert documented == {name: as_text(default) for name, default in fields.items()}


def as_text(default: object) -> str:
    if default is None:
        return "not set"
    return (
        str(default).lower()
        if isinstance(default, bool)
        else f"{default:g}"
        if isinstance(default, float)
        else str(default)
    )


def test_every_choice_of_a_setting_is_documented():
    codes = set(PAGE["settings"].codes())
    for model in (Recipe, Rules, Compute):
        for field in model.model_fields.values():
            assert set(typing.get_args(field.annotation)) - {int, str, type(None)} <= codes or not is_literal(field)


def is_literal(field: object) -> bool:
    return typing.get_origin(getattr(field, "annotation", None)) is typing.Literal


SECTIONS = ("The source file", "The output", "How it went")


def columns() -> list[list[str]]:
    return [row for section in SECTIONS for row in PAGE["manifest"].rows(section)]


def test_columns_are_documented_with_their_types(prepared: Path):
    written = pq.read_schema(prepared / "dataset/manifest.parquet")
    documented = [(row[0].strip("`"), row[1].strip("`")) for row in columns()]
    assert documented == [(field.name, str(field.type)) for field in written]
    assert written.names == SCHEMA.names
    assert f"`{SCHEMA_VERSION}`" in PAGE["manifest"].rows("Metadata of the file")[0][1]


def test_columns_are_null_when_the_documentation_says_so(prepared: Path):
    rows = pq.read_table(prepared / "dataset/manifest.parquet").to_pylist()
    assert {row["status"] for row in rows} == {"ok", "failed"}
    is_null = {
        "never": lambda _row: False,
        "local": lambda _row: True,
        "failed": lambda row: row["status"] == "failed",
        "ok": lambda row: row["status"] == "ok",
        "unread": lambda row: row["error_code"] == "source.not_found",
        "unknown": lambda row: row["error_code"] in {"source.not_found", "decode.unknown_format"},
    }
    for name, _, null, _ in columns():
        column = name.strip("`")
        wrong = [row["source_path"] for row in rows if (row[column] is None) != is_null[null](row)]
        assert not wrong, f"{column} is not null as {null!r} says: {wrong}"
        assert SCHEMA.field(column).nullable or null == "never"


def test_metadata_is_documented(prepared: Path):
    documented = {row[0].strip("`") for row in PAGE["manifest"].rows("Metadata of the file")}
    [run] = (prepared / "dataset/runs").iterdir()
    found = {key.decode() for key in pq.read_metadata(run).metadata}
    assert documented == found
    assert found - {"run"} == {key.decode() for key in pq.read_metadata(prepared / "dataset/manifest.parquet").metadata}


def test_error_codes_are_documented_with_when_they_are_retried():
    documented = {row[0].strip("`"): row[2] for row in PAGE["manifest"].rows("Error codes")}
    assert documented == {code: "next run" if code in RETRIED_NEXT_RUN else "file changes" for code in ErrorCode}
    [sentence] = re.findall(r"^Within a run, (.*?) are tried", PAGE["manifest"].prose, re.MULTILINE | re.DOTALL)
    assert set(names(sentence)) == TRANSIENT


def test_warnings_are_documented():
    documented = {row[0].strip("`") for row in PAGE["manifest"].rows("Warnings")}
    sources = "".join(path.read_text() for path in (CHECKOUT / "tasks").rglob("*.py"))
    assert all(f'"{warning}"' in sources for warning in documented)
    given = re.findall(r'warnings\.append\("(\w+)"\)|return "(icc_\w+)"', sources)
    assert {word for words in given for word in words if word} <= documented


def test_findings_are_documented():
    rows = PAGE["verify"].rows("Findings")
    assert {row[0].strip("`") for row in rows if len(row) == 3 and row[0].strip("`") in set(FindingKind)} == set(
        FindingKind
    )
    assert [(row[0].strip("`"), row[1].strip("`")) for row in rows[-len(FINDINGS_SCHEMA) :]] == [
        (field.name, str(field.type)) for field in FINDINGS_SCHEMA
    ]


def test_suffixes_are_documented():
    [paragraph] = [text for text in PAGE["inputs"].prose.split("\n\n") if text.startswith("`avif`")]
    assert set(names(paragraph)) == IMAGE_SUFFIXES


def test_deployments_are_documented_with_their_schedules():
    file = yaml.safe_load((CHECKOUT / "deployments/prefect.yaml").read_text())
    flows = {f"{entry['entrypoint'].rpartition(':')[2]}/{entry['name']}" for entry in file["deployments"]}
    assert {row[0].strip("`") for row in PAGE["deployment"].rows("Deployments") if "/" in row[0]} == flows


def test_variables_are_documented():
    read = set()
    for path in (CHECKOUT / "deployments").glob("*.py"):
        read |= set(re.findall(r'"(DARKROOM_[A-Z]+)"', path.read_text()))
    read |= set(re.findall(r"\$(DARKROOM_[A-Z]+)", (CHECKOUT / "deployments/prefect.yaml").read_text()))
    assert read - {"DARKROOM_STACK"} <= set(PAGE["deployment"].codes())


def test_options_and_targets_in_the_prose_exist():
    group = typer.main.get_command(app)
    options = {option for command in group.commands.values() for each in command.params for option in each.opts}
    options |= {
        option for command in group.commands.values() for each in command.params for option in each.secondary_opts
    }
    targets = set(re.findall(r"^([a-z]+):.*##", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        for code in page.codes():
            assert set(re.findall(r"(?<!\S)--[a-z-]+", code)) <= options | OTHER_OPTIONS, f"{page.name}: {code}"
            assert set(re.findall(r"^make ([a-z]+)", code)) <= targets, f"{page.name}: {code}"
