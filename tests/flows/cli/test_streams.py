"""The command with standard streams that are closed, full, or no longer read."""

from __future__ import annotations

import os
import subprocess
from importlib.metadata import version
from itertools import combinations
from pathlib import Path

import pytest
from harness import DARKROOM

VERSION = f"darkroom {version('darkroom')}\n"


def shell(arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command by a shell, whose redirections close streams before Python starts."""
    command = f'python="$1" module="$3"; "$python" -m "$module" {arguments}'
    return subprocess.run(
        ["bash", "-c", command, "", *DARKROOM], capture_output=True, text=True, cwd=folder, check=False
    )


CLOSED = ["".join(parts) for count in (1, 2, 3) for parts in combinations((" <&-", " >&-", " 2>&-"), count)]


@pytest.mark.parametrize("closed", CLOSED)
def test_closed_streams_change_nothing_else(closed: str, tmp_path: Path):
    ended = shell(f"--version{closed}", tmp_path)
    assert (ended.returncode, ended.stdout) == (0, "" if ">&- " in f"{closed.replace('2>&-', '')} " else VERSION)
    assert ended.stderr == ""
    ended = shell(f"status gone{closed}", tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == ("2>&-" not in closed)


def test_a_full_standard_output_is_one_line_and_a_failure(tmp_path: Path):
    ended = shell("--version >/dev/full", tmp_path)
    assert ended.returncode == 1
    assert ended.stderr == (
        "darkroom: The output could not be printed: No space left on device. The command's work is kept.\n"
    )


def test_a_full_standard_error_loses_only_the_message(tmp_path: Path):
    assert shell("--version 2>/dev/full", tmp_path).stdout == VERSION
    assert shell("status gone 2>/dev/full", tmp_path).returncode == 2


def test_a_reader_that_stops_early_is_no_error(tmp_path: Path):
    ended = shell("--help | true", tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")


def python(code: str, redirections: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run code after `open_streams`, by a shell with pipefail."""
    code = f"import os, sys\nfrom darkroom.flows.cli.streams import *\nopen_streams()\n{code}\nsys.stdout.flush()"
    command = ["bash", "-o", "pipefail", "-c", f'"$0" -c "$1" {redirections}', DARKROOM[0], code]
    return subprocess.run(command, cwd=folder, env=os.environ | variables, capture_output=True, text=True, check=False)


def test_a_reader_that_stops_in_the_middle_is_no_error(tmp_path: Path):
    ended = python("for number in range(100_000): print(number)", "| head -1", tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "0\n", "")


def test_characters_that_an_encoding_lacks_are_escaped(tmp_path: Path):
    code = "print('2 × 写')"
    assert python(code, "", tmp_path).stdout == "2 × 写\n"
    ended = python(code, "| iconv --from cp1252", tmp_path, PYTHONIOENCODING="cp1252")
    assert (ended.returncode, ended.stdout) == (0, "2 × \\u5199\n")


def test_a_standard_error_that_takes_no_more_loses_only_messages(tmp_path: Path):
    ended = python("os.set_blocking(2, False); print('x' * 1_000_000, file=sys.stderr)", "2> >(sleep 1)", tmp_path)
    assert ended.returncode == 0


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", ">&-", "2>/dev/full"])
def test_descriptors_of_standard_streams_are_never_those_of_other_files(closed: str, tmp_path: Path):
    code = """
import os, socket, subprocess, sys
from darkroom.flows.cli.streams import open_streams
open_streams()
assert socket.socket().fileno() > 2
print("lost or shown")
print("lost or shown", file=sys.stderr)
child = "import os; [os.fstat(number) for number in range(3)]"
sys.exit(subprocess.run([sys.executable, "-c", child]).returncode)
"""
    command = ["bash", "-c", f'"$0" -c "$1" {closed}', DARKROOM[0], code]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0
