"""Python scripts call the flow like any other function."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from harness import Api, clean_environment

from tests.places import OnDisk
from tests.tasks.helpers import publish_rows, row


def run_script(
    *command: Path, environment: dict[str, str], folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )


def test_a_script_calls_the_flow_like_any_other(api: Api, folder: Path, tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from darkroom.flows.preprocess import preprocess\n"
        "from darkroom.tasks.settings import Recipe, Rules\n"
        "if __name__ == '__main__':\n"
        "    report = preprocess(Path(sys.argv[1]), destination=Path(sys.argv[2]),\n"
        "                        recipe=Recipe(width=32, height=32), rules=Rules(max_failure_ratio=1))\n"
        "    print(report)\n"
        "    print(*(image.source_path for image in report.failures()), report.manifest)\n"
    )

    done = run_script(script, folder, tmp_path / "out", environment=api.environment)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "24 made, 2 failed, 0 unchanged",
        "failures: 1 × decode.truncated, 1 × decode.unknown_format",
        f"manifest: {tmp_path}/out/manifest.parquet",
        f"broken.jpg page.jpg {tmp_path}/out/manifest.parquet",
    ]


def test_a_script_without_a_guard_is_refused_before_anything_starts(folder: Path, tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text("import sys\nfrom darkroom import preprocess\npreprocess(sys.argv[1], sys.argv[2])\n")

    done = run_script(script, folder, tmp_path / "out", environment=clean_environment(tmp_path, is_empty=True))

    assert done.returncode == 1
    assert f"SettingsError: {script}, line 3: put this call below 'if __name__" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / ".prefect/prefect.db").exists(), "no server was started"


def test_a_script_gets_the_error_of_a_failed_run_and_its_report(api: Api, folder: Path, tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "import darkroom.flows.run\n"
        "from darkroom import RunFailedError, preprocess\n"
        "from darkroom.tasks.errors import SettingsError\n"
        "darkroom.flows.run.make_contact_sheets = None  # a missing picture fails no run\n"
        "if __name__ == '__main__':\n"
        "    try:\n"
        "        preprocess(sys.argv[1], sys.argv[2], rules={'max_failure_ratio': 0})\n"
        "    except RunFailedError as failure:\n"
        "        print('FAILED', failure, failure.report.ok, failure.report.failed)\n"
        "    print('STATE', preprocess(sys.argv[1] + '/none', sys.argv[2], return_state=True).message)\n"
        "    print('NOWHERE', preprocess(sys.argv[1], 'ftp://out', return_state=True).message)\n"
        "    print('NONE', preprocess(*sys.argv[1:], compute={'workers': 0}, return_state=True).message)\n"
        "    try:\n"
        "        preprocess(sys.argv[1] + '/none', sys.argv[2])\n"
        "    except SettingsError as error:\n"
        "        print('RAISED', error)\n"
    )

    done = run_script(script, folder, tmp_path / "out", environment=api.environment)

    assert done.returncode == 0, done.stderr
    failed, state, nowhere, none, raised = done.stdout.splitlines()
    assert failed.startswith("FAILED 2 of 26 attempted images failed")
    assert failed.endswith("24 2")
    assert state.startswith(f"STATE source: {folder}/none does not exist.")
    assert nowhere.startswith("NOWHERE destination: 'ftp://out' is no URL of an object store")
    assert "`workers=0`: give a whole number of 1 or more." in none
    assert api.latest_summary("ftp://out").startswith(
        "# Failed\n\n**destination: 'ftp://out' is no URL of an object store.**"
    )
    assert raised.startswith(f"RAISED source: {folder}/none does not exist.")
    assert api.latest_summary(tmp_path / "out").startswith(f"# Failed\n\n**source: {folder}/none does not exist.** ")


CALLS = {
    "preprocess('photos')": "TypeError: missing a required argument: 'destination'",
    "preprocess('photos', 'out', width=3)": "TypeError: got an unexpected keyword argument 'width'",
    "preprocess(3, 'out')": "SettingsError: source: give a text or a path, not 3.",
    "preprocess('photos', 'out', 'cover')": "InvalidSettingError: `recipe`: give a Recipe, not 'cover'.",
    "preprocess('photos', 'out', {'widht': 3})": "There is no setting 'widht'; did you mean 'width'?",
    "preprocess('photos', Path('s3://b/c'))": "destination: s3:/b/c lacks a slash. Give 's3://b/c', as text, not as a "
    "path.",
    "preprocess('none', 'out')": "none does not exist. Give the folder or the list of the images.",
    "verify('photos')": "photos is not a destination of Darkroom. Has a run ever used it?",
    "verify('out', sample='10%')": "`sample='10%'`: give a number above 0 and up to 1, such as 0.1 for a tenth of the "
    "outputs.",
}


def test_wrong_arguments_are_refused_before_anything_starts(place: OnDisk, tmp_path: Path):
    publish_rows(place, [row("a.jpg")])
    (tmp_path / "photos").mkdir()
    os.rename(place.root, tmp_path / "out")
    lines = ["from pathlib import Path", "from darkroom import preprocess, verify", "if __name__ == '__main__':"]
    for call in CALLS:
        lines += ["    try:", f"        {call}", "    except Exception as error:"]
        lines += ["        print(f'{type(error).__name__}: {error}')"]
    script = tmp_path / "script.py"
    script.write_text("\n".join(lines))

    done = run_script(script, environment=clean_environment(tmp_path, is_empty=True), folder=tmp_path)

    assert done.returncode == 0, done.stderr
    for line, message in zip(done.stdout.splitlines(), CALLS.values(), strict=True):
        assert line.endswith(message)
    assert not (tmp_path / ".prefect/prefect.db").exists(), "no server was started"
