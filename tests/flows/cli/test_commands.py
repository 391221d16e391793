"""The command as a whole."""

from importlib.metadata import version

import pytest
from typer.testing import CliRunner

from darkroom.flows.cli.commands import app


def run(*arguments):
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "80", "TERM": "dumb"})


def test_the_version_is_that_of_the_package():
    assert run("--version").output == f"darkroom {version('darkroom')}\n"


@pytest.mark.parametrize(
    "arguments", [(), *((name,) for name in ("run", "verify", "status", "failures", "rebuild-manifest", "history"))]
)
def test_help_fits_80_columns_and_leaves_half_of_them_to_the_descriptions(arguments):
    lines = run(*arguments, "--help").output.splitlines()
    assert max(map(len, lines)) <= 80
    assert all(len(line) - len(line.lstrip()) <= 40 for line in lines)
    assert not any(line.endswith("...") for line in lines[1:]), "summaries are whole"


def test_a_misspelt_option_is_refused_with_similar_ones():
    refused = run("run", "--widht", "3", "photos", "dataset")
    assert refused.exit_code == 2
    assert "No such option: --widht" in refused.output
    assert "--width" in refused.output
