"""Options have the names, types and limits of the settings."""

import re

import pytest
from typer import Typer
from typer.testing import CliRunner

from darkroom.flows.cli.options import name_options, parse, with_settings
from darkroom.tasks.errors import SettingsError
from darkroom.tasks.settings import Compute, Rules

app = Typer()


@app.command()
@with_settings(Rules, Compute)
def command(**settings):
    print(parse(Rules, settings).model_dump_json(), parse(Compute, settings).model_dump_json())


def run(*arguments):
    return CliRunner().invoke(app, arguments)


def test_defaults_are_those_of_the_settings():
    assert run().output.strip() == f"{Rules().model_dump_json()} {Compute().model_dump_json()}"


def test_each_setting_is_an_option_of_its_type():
    output = run("--force", "--no-sync-outputs", "--limit", "7", "--cluster-kwargs", '{"n_workers": 3}').output
    assert '"force":true' in output
    assert '"sync_outputs":false' in output
    assert '"limit":7' in output
    assert '"cluster_kwargs":{"n_workers":3}' in output
    assert run("--no-force").exit_code == 2, "a flag that is off by default has no opposite"


def test_a_setting_with_several_values_is_an_option_that_is_given_several_times():
    assert '"exclude":["raw/","*.png"]' in run("--exclude", "raw/", "--exclude", "*.png").output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--exclude", "./a"], r"--exclude: pattern './a' has a \. or \.\. in it; begin with / for a path"),
        (["--max-pixels", "0"], r"--max-pixels 0: give a whole number of 1 or more\.$"),
        (["--max-pixels", "many"], r"--max-pixels many: give a whole number of 1 or more\.$"),
        (["--max-delete-ratio", "2"], r"--max-delete-ratio 2: give a number from 0 to 1\.$"),
        (["--detect-changes", "contnt"], "--detect-changes contnt: give .*ctime or content; did you mean 'content'"),
        (["--cluster-kwargs", "{"], "--cluster-kwargs {: give JSON"),
        (["--cluster-kwargs", "[]"], r"--cluster-kwargs \[\]: give arguments by name"),
        (["--scheduler", "h:1"], r"--scheduler h:1: give a value such as tcp://host:8786\.$"),
        (["--scheduler", "tcp://h:1", "--workers", "2"], "leave out --workers, --cluster-class"),
    ],
)
def test_a_wrong_value_is_named_with_its_option(arguments, message):
    with pytest.raises(SettingsError) as raised:
        raise run(*arguments).exception
    assert re.search(message, name_options(str(raised.value)))
