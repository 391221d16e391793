"""Run every command and snippet of the documentation, in the order of its page, and compare its output."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import duckdb
import pytest
import yaml
from harness import CHECKOUT
from markdown_pages import PAGES, Block, Page
from needs import skip_or_fail

from darkroom import Recipe

ELSEWHERE = {
    "make stack": ("tests/deployments/test_stack.py", "darkroom.deployments.stack"),
    "DARKROOM_SOURCE=/data/photos DARKROOM_DESTINATION=/data/dataset make stack": (
        "tests/deployments/test_stack.py",
        "darkroom.deployments.stack",
    ),
    "make deploy": ("tests/deployments/test_deploy.py", "darkroom.deployments.deploy"),
    "make worker": ("tests/deployments/test_deploy.py", "darkroom.deployments.flow_worker"),
    "export PREFECT_API_URL=http://127.0.0.1:4200/api": ("tests/deployments/conftest.py", '"PREFECT_API_URL"'),
    "prefect deployment run preprocess/nightly --watch": (
        "tests/deployments/test_deploy.py",
        '"deployment", "run", "preprocess/nightly", "--watch"',
    ),
    "prefect flow-run retry": ("tests/deployments/test_deploy.py", '"flow-run", "retry"'),
    "export PREFECT_SERVER_LOGS_STREAM_OUT_ENABLED=true": (
        "tests/deployments/conftest.py",
        '"PREFECT_SERVER_LOGS_STREAM_OUT_ENABLED": "true"',
    ),
    "python -m darkroom.deployments.server": ("tests/deployments/conftest.py", '"darkroom.deployments.server"'),
    "systemctl enable": ("tests/deployments/test_installations.py", "systemd-analyze"),
    "dask scheduler": ("tests/harness.py", '"dask_scheduler"'),
    "dask worker": ("tests/harness.py", '"dask_worker"'),
    "darkroom run s3://my-photos/2026 s3://my-datasets/2026 --scheduler": (
        "tests/flows/test_security.py",
        '"--scheduler", address',
    ),
    "docker compose": ("tests/deployments/test_installations.py", "docker-compose"),
}
"""Commands that keep running or need a whole machine, by their first words: the file of the test that runs each
instead, and words in that file that show it."""

BY_HAND = ("make bench", "python -m benchmarks.")
"""Measurements, which take minutes: only their options are checked."""

SECONDS = 280
"""A block that takes longer hangs: a little less than what pytest allows a test, so that the block is named."""

ANY_OUTPUT = "…"
"""The output of a block that did not run, which matches any stated output."""


def test_commands_that_other_tests_run_are_in_a_page_and_in_their_test():
    lines = shell_lines()
    for beginning, (path, words) in ELSEWHERE.items():
        assert any(begins(line, beginning) for line in lines), f"no page has {beginning!r} any more"
        assert words in (CHECKOUT / path).read_text(), f"{path} no longer runs {beginning!r}"


def test_measurements_have_the_documented_options():
    lines = [line for line in shell_lines() if any(begins(line, words) for words in BY_HAND)]
    for line in lines:
        module = line.split()[2] if line.startswith("python") else "benchmarks"
        command = [sys.executable, "-m", module, "--help"]
        stated = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
        assert set(re.findall(r"--[a-z-]+", line)) <= set(re.findall(r"--[a-z-]+", stated)), line


def shell_lines() -> list[str]:
    return [line for page in PAGES for block in page.blocks if block.language == "sh" for line in commands(block)]


@pytest.mark.parametrize("page", [page for page in PAGES if page.blocks], ids=lambda page: page.name)
def test_the_snippets_of_a_page_run(
    page: Page, reader: Callable[[str], Path], environment: dict[str, str], request: pytest.FixtureRequest
):
    folder = reader(page.name)
    if page.name == "docs/buckets.md":
        environment = environment | request.getfixturevalue("cloud")
    environment = environment | {"HOME": str(folder.parent), "PREFECT_HOME": f"{environment['HOME']}/.prefect"}
    lacking: set[str] = set()
    output = ""
    for block in page.blocks:
        where = f"{page.name}, line {block.line}"
        if block.language == "text":  # the output of the block before it
            assert matches(output, block.code), f"{where}: the output is\n{output}"
        elif block.language == "python" and (missing := missing_packages(block.code)):
            lacking |= missing
            output = ANY_OUTPUT
        elif not is_covered_elsewhere(block, where):
            output = RUNNERS[block.language](block.code, folder, environment, where)
    if lacking:
        skip_or_fail(f"{', '.join(sorted(lacking))} not installed: the snippets that import it did not run")


def commands(block: Block) -> list[str]:
    """Return the lines of a shell block without its comments."""
    return [line for raw in block.code.splitlines() if (line := re.sub(r"(^|\s+)#.*", "", raw).strip())]


def is_covered_elsewhere(block: Block, where: str) -> bool:
    """Return whether other tests run a block's commands; assert that they run all of them or none."""
    if block.language != "sh":
        return False
    covered = [any(begins(line, words) for words in (*ELSEWHERE, *BY_HAND)) for line in commands(block)]
    assert all(covered) or not any(covered), f"{where}: only a part of this block is run by other tests"
    return all(covered)


def begins(line: str, words: str) -> bool:
    """Return whether a command begins with these words."""
    return line == words or line.startswith(words if words.endswith(".") else f"{words} ")


def missing_packages(code: str) -> set[str]:
    """Return the packages that a snippet imports and that are not installed."""
    nodes = list(ast.walk(ast.parse(code)))
    modules = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    modules += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {package for module in modules if not find_spec(package := module.partition(".")[0])}


def run(command: list[str], folder: Path, environment: dict[str, str], where: str, code: int = 0) -> str:
    done = subprocess.run(
        command,
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == code, f"{where}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def run_shell(code: str, folder: Path, environment: dict[str, str], where: str) -> str:
    stated = re.search(r"# exit code (\d+)", code)
    return run(["bash", "-euo", "pipefail", "-c", code], folder, environment, where, int(stated[1]) if stated else 0)


def run_python(code: str, folder: Path, environment: dict[str, str], where: str) -> str:
    script = folder / "script.py"
    script.write_text(code)
    return run([sys.executable, "-W", "error::FutureWarning", str(script)], folder, environment, where)


def run_sql(code: str, folder: Path, _environment: dict[str, str], where: str) -> str:
    with pytest.MonkeyPatch.context() as patch, duckdb.connect() as db:
        patch.chdir(folder)
        rows = db.execute(code).fetchall()
    assert rows, f"{where}: no rows"
    return "\n".join(map(str, rows))


def run_cron(code: str, folder: Path, environment: dict[str, str], where: str) -> str:
    """Run the command of a crontab line as cron does: by `sh`, in the home folder."""
    [(times, command)] = [(line.split()[:5], line.split(maxsplit=5)[5]) for line in code.splitlines()]
    assert all(re.fullmatch(r"\*|\d+", time) for time in times), where
    return run(["sh", "-c", command], folder.parent, environment, where)


def check_deployment(code: str, _folder: Path, _environment: dict[str, str], where: str) -> str:
    """Check that a snippet, appended to `prefect.yaml`, is a valid deployment."""
    [entry] = yaml.safe_load((CHECKOUT / "deployments/prefect.yaml").read_text() + code)["deployments"][3:]
    assert entry["work_pool"]["name"] == "darkroom"
    module, _, name = entry["entrypoint"].partition(".py:")
    flow = getattr(import_module(f"darkroom.{module.replace('/', '.')}"), name)
    parameters = entry["parameters"]
    assert set(parameters) <= set(flow.parameters.properties), where
    inner = parameters.get("parameters", parameters)
    assert Recipe(**inner["recipe"]) != Recipe(), where
    assert "scheduler" in inner["compute"], where
    return ""


def check_json(code: str, _folder: Path, _environment: dict[str, str], where: str) -> str:
    """Check that a snippet is valid JSON."""
    assert json.loads(code), where
    return ""


def check_tree(code: str, folder: Path, _environment: dict[str, str], where: str) -> str:
    """Check that a dataset has exactly the drawn files and folders; no verification has written `findings` to it."""
    drawn = {line.split()[0].partition("/")[0] for line in code.splitlines()[1:]}
    assert drawn - {"findings"} == {path.name for path in (folder / "dataset").iterdir()}, where
    return ""


RUNNERS = {
    "sh": run_shell,
    "python": run_python,
    "sql": run_sql,
    "cron": run_cron,
    "yaml": check_deployment,
    "json": check_json,
    "": check_tree,
}


def matches(output: str, stated: str) -> bool:
    """Return whether an output equals the stated one.

    If the stated one has …, that stands for the rest of a line, and numbers may differ.
    """
    if output == ANY_OUTPUT:
        return True
    output, stated = ("\n".join(line.rstrip() for line in text.strip().splitlines()) for text in (output, stated))
    if "…" not in stated:
        return output == stated
    # make prints the command that it runs.
    output = re.sub(r"\A\.venv/bin/darkroom run .*\n", "", output)
    output, stated = (re.sub(r"\d[\d,]*(\.\d+)?", "0", text) for text in (output, stated))
    return re.fullmatch(re.escape(stated).replace("…", ".*"), output) is not None
