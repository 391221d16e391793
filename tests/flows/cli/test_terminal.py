"""Errors and progress on the terminal, and how the command line exits."""

import pytest

from darkroom.flows.cli.terminal import exit_on_error
from darkroom.tasks.errors import ClusterError, SettingsError


@pytest.mark.parametrize(("problem", "code"), [(SettingsError("wrong [width]"), 2), (ClusterError("lost [a]"), 1)])
def test_an_error_becomes_a_line_and_an_exit_code(problem, code, capsys):
    with pytest.raises(SystemExit) as end, exit_on_error():
        raise problem
    assert end.value.code == code
    assert capsys.readouterr().err == f"darkroom: {problem}\n"


def test_odd_names_in_an_error_do_not_change_or_reach_the_terminal(capsys):
    with pytest.raises(SystemExit), exit_on_error():
        raise SettingsError("/a:cat:b\x1b[31m is wrong")
    assert capsys.readouterr().err == "darkroom: /a:cat:b�[31m is wrong\n"
