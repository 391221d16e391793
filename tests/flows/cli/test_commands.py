"""Commands that need neither server nor workers."""

from importlib.metadata import version

import pytest
from typer.testing import CliRunner

from darkroom.flows.cli.commands import app
from darkroom.tasks.errors import SettingsError
from tests.tasks.helpers import failed_row, publish_rows, row


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_the_version_is_that_of_the_package():
    assert run("--version").output == f"darkroom {version('darkroom')}\n"


@pytest.mark.parametrize("command", ["status", "history", "rebuild-manifest"])
def test_any_other_folder_is_not_a_destination(command, tmp_path):
    for folder in (tmp_path, tmp_path / "gone"):
        assert isinstance(run(command, folder).exception, SettingsError)


def test_status_and_history_show_what_a_destination_holds(place):
    publish_rows(place, [row("a.jpg"), failed_row("b.jpg", "decode.corrupt")])
    status = run("status", place.root).output
    assert "images    2 (1 ok, 1 failed), 0.0 MB of outputs\nfailures  1 × decode.corrupt\n" in status
    assert status.endswith("lease     free\n")
    assert run("history", place.root).output.splitlines()[1].split()[2:4] == ["1", "1"]
    assert (
        run("rebuild-manifest", place.root).output == f"{place.root}/manifest.parquet is whole: nothing was changed.\n"
    )
