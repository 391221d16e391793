"""The command as a whole."""

from importlib.metadata import version

import pytest
from typer.testing import CliRunner

from darkroom.flows.cli.commands import app
from darkroom.flows.cli.terminal import exit_on_error


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


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (
            ["run", "--widht", "3", "photos", "dataset"],
            "No such option: --widht (Possible options: --fit, --height, --width). See --help.",
        ),
        (["run", "photos"], "Missing argument 'DESTINATION'. See --help."),
        (["rum"], "No such command 'rum'. Did you mean 'run'? See --help."),
    ],
)
def test_wrong_usage_is_answered_in_the_style_of_a_wrong_value(arguments, answer, capsys):
    with pytest.raises(SystemExit) as end, exit_on_error():
        app(arguments, standalone_mode=False)
    assert end.value.code == 2
    assert capsys.readouterr().err == f"darkroom: {answer}\n"


def test_without_a_command_the_help_is_shown():
    shown = run()
    assert shown.exit_code == 2
    assert "  verify  " in shown.output
