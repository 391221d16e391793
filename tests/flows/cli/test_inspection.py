"""Commands that look at a destination, without server and workers."""

import json

import pytest
from typer.testing import CliRunner

from darkroom.flows.cli.commands import app
from darkroom.tasks.errors import DarkroomError, SettingsError
from tests.tasks.helpers import failed_row, make_job, open_workspace, publish_rows, row, write_journal


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.mark.parametrize("command", ["status", "history", "failures", "rebuild-manifest"])
def test_any_other_folder_is_not_a_destination(command, tmp_path):
    for folder in (tmp_path, tmp_path / "gone"):
        assert isinstance(run(command, folder).exception, SettingsError)


def test_status_and_history_show_what_a_destination_holds(place):
    publish_rows(place, [row("a.jpg"), failed_row("b.jpg", "decode.corrupt")])
    status = run("status", place.root).output
    assert "images    2 (1 ok, 1 failed), 10 bytes of outputs\nfailures  1 × decode.corrupt\n" in status
    assert status.endswith("lease     free\n")
    assert run("history", place.root).output.splitlines()[1].split()[2:4] == ["1", "1"]
    assert (
        run("rebuild-manifest", place.root).output == f"{place.root}/manifest.parquet is whole: nothing was changed.\n"
    )


def test_failures_are_listed_as_text_or_json(place):
    message = "it ends too early"
    failed = [failed_row("a\n.jpg", "decode.truncated", error_message=message), failed_row("b.jpg", "source.empty")]
    publish_rows(place, [row("c.jpg"), *failed])
    listed = run("failures", place.root)
    assert listed.output.splitlines()[0] == f"a�.jpg: decode.truncated: {message}"
    assert (listed.exit_code, len(listed.output.splitlines())) == (0, 2)
    chosen = run("failures", place.root, "--code", "decode.truncated", "--json").output
    assert json.loads(chosen) == {"source_path": "a\n.jpg", "error_code": "decode.truncated", "error_message": message}


@pytest.mark.parametrize("command", ["status", "failures", "history"])
def test_a_lost_manifest_is_an_error(place, command):
    publish_rows(place, [row("a.jpg")])
    (place.root / "manifest.parquet").unlink()
    with pytest.raises(DarkroomError, match=r"manifest.parquet is missing, although .* has the files of 1 run"):
        raise run(command, place.root).exception


def test_a_file_is_not_a_destination(tmp_path):
    (tmp_path / "list.txt").touch()
    with pytest.raises(SettingsError, match=r"list.txt is a file. Give the folder of a dataset\."):
        raise run("status", tmp_path / "list.txt").exception


def test_codes_of_no_image_are_noted(place):
    publish_rows(place, [failed_row("b.jpg", "source.empty")])
    listed = run("failures", place.root, "--code", "decode.crash", "--code", "decode.timeout")
    assert (listed.exit_code, listed.stdout) == (0, "")
    assert listed.stderr == "darkroom: No image has failed with decode.crash or decode.timeout.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["failures", "--code", "decode.truncatd"],
            "`code=decode.truncatd`: give one of .*did you mean 'decode.trunca",
        ),
        (["history", "--last", "0"], "`last=0`: give a whole number of 1 or more."),
        (["verify", "--sample", "x"], "`sample=x`: give a number."),
    ],
)
def test_a_wrong_option_is_named_with_what_it_takes(place, arguments, message):
    command, *options = arguments
    publish_rows(place, [])
    with pytest.raises(SettingsError, match=message):
        raise run(command, place.root, *options).exception


def test_an_interrupted_first_run_is_described(place):
    write_journal(open_workspace(place, make_job(place)), [row("a.jpg"), row("b.jpg")])
    for command in ("status", "history"):
        ended = run(command, place.root)
        assert ended.exit_code == 0
        assert "resume    2 images of 1 interrupted run are safe: the next run goes on from there" in ended.output
    failures = run("failures", place.root)
    assert (failures.stdout, failures.exit_code) == ("", 0)
    assert "No run has published here yet" in failures.stderr
