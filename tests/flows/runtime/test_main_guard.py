"""Scripts without a guard get a message before anything is started."""

import subprocess
import sys

import pytest
from harness import clean_environment

CALL = "from darkroom.flows.runtime.main_guard import check_main_guard as check\n"


def run(tmp_path, code, *options):
    (tmp_path / "script.py").write_text(code)
    command = [sys.executable, *(options or ("script.py",))]
    environment = clean_environment(tmp_path)
    return subprocess.run(
        command, cwd=tmp_path, env=environment, input=code, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "code",
    ["check()", "def f():\n    check()\nf()", "if True:\n    check()", "if __name__ == '__main__':\n    pass\ncheck()"],
)
def test_a_call_that_an_import_would_repeat_is_refused(tmp_path, code):
    ended = run(tmp_path, f"{CALL}{code}\n")
    assert ended.returncode == 1
    line = len(f"{CALL}{code}".splitlines())
    assert ended.stderr.splitlines()[-1] == (
        f"darkroom.tasks.errors.SettingsError: {tmp_path}/script.py, line {line}: put this call below "
        "'if __name__ == \"__main__\":'. Worker processes import the script, and would call it again."
    )


@pytest.mark.parametrize(
    ("code", "options"),
    [
        ("if __name__ == '__main__':\n    check()", ()),
        ("def f():\n    check()\nif '__main__' == __name__:\n    f()", ()),
        ("check()", ("-c", f"{CALL}check()")),
    ],
)
def test_a_call_that_no_import_repeats_is_fine(tmp_path, code, options):
    ended = run(tmp_path, f"{CALL}{code}\n", *options)
    assert ended.returncode == 0, ended.stderr


def test_a_script_from_standard_input_is_refused(tmp_path):
    ended = run(tmp_path, f"{CALL}if __name__ == '__main__':\n    check()\n", "-")
    assert ended.stderr.endswith(
        "SettingsError: This script comes from standard input, where worker processes can't import it: save it.\n"
    )
