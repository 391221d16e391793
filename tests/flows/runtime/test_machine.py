"""What a machine lacks is reported in one line, or worked around."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from harness import DARKROOM, clean_environment, darkroom

from darkroom.flows.runtime import machine
from darkroom.tasks.errors import SettingsError
from tests.needs import needs


def as_root_elsewhere(script: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a shell script as root of a mount namespace of its own."""
    if os.geteuid():
        pytest.skip("only root can mount")
    command = [needs("unshare", "util-linux"), "-m", "sh", "-ec", script, *DARKROOM]
    return subprocess.run(
        command, env=environment, cwd=environment["HOME"], capture_output=True, text=True, timeout=120, check=False
    )


def run_in_shell(script: str, folder: Path, *, arguments: str = "run photos dest") -> subprocess.CompletedProcess[str]:
    """Run the command after a shell script, without a Prefect server."""
    command = ["bash", "-ec", f'{script}; "$0" "$@" {arguments}', *DARKROOM]
    (folder / "photos").mkdir(exist_ok=True)
    return subprocess.run(
        command,
        env=clean_environment(folder, is_empty=True),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_working_directory_that_was_removed_is_named(tmp_path: Path):
    ended = run_in_shell("mkdir gone; cd gone; rmdir ../gone", tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.startswith("darkroom: The working directory was removed. Change to one that exists")
    assert ended.stderr.count("\n") == 1


def test_a_working_directory_that_may_not_be_entered_is_named(tmp_path: Path):
    shell = "" if os.geteuid() else "setpriv --bounding-set=-all --inh-caps=-all "
    command = f'mkdir closed; cd closed; chmod 0 .; exec {shell}"$0" "$@" --version'
    ended = subprocess.run(
        ["bash", "-c", command, *DARKROOM], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    (tmp_path / "closed").chmod(0o700)
    assert ended.returncode == 2
    assert ended.stderr == (
        f"darkroom: The working directory, {tmp_path}/closed, may not be entered by this user. Change to another one "
        "with 'cd'.\n"
    )


@pytest.mark.parametrize("blocks", [0, 100, 100_000])
def test_a_limit_on_the_size_of_files_is_named(blocks: int, tmp_path: Path):
    ended = run_in_shell(f"ulimit -f {blocks}", tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"darkroom: Files may not grow beyond {blocks * 1024:,} bytes here (ulimit -f)")
    assert ended.stderr.count("\n") == 1


def test_a_soft_limit_on_the_size_of_files_is_raised():
    code = (
        "import resource; from darkroom.flows.runtime.machine import check_machine; check_machine();"
        "print(resource.getrlimit(resource.RLIMIT_FSIZE)[0])"
    )
    command = ["bash", "-c", 'ulimit -Sf 100; "$0" -c "$1"', sys.executable, code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "-1\n"


def test_without_any_temporary_folder_there_is_a_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "gone")])
    with pytest.raises(SettingsError, match=r"No usable temporary directory found in \['.+gone'\]\. .+ set TMPDIR"):
        machine.check_machine()


@pytest.mark.slow
def test_a_long_temporary_folder_is_used_for_all_but_sockets(folder: Path, tmp_path: Path):
    long = tmp_path / ("t" * (131 - len(str(tmp_path))))
    long.mkdir()
    environment = clean_environment(tmp_path, is_empty=True) | {"TMPDIR": str(long)}
    ended = darkroom("run", folder, tmp_path / "dest", "--workers", "1", environment=environment)
    assert ended.code == 0, ended.err
    assert list(long.iterdir()), "Dask's temporary files are in it"


def test_without_a_shorter_temporary_folder_there_is_a_remedy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", "/" + "t" * 130)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(SettingsError, match=r"TMPDIR: /t+ is too long .+ at most 68 bytes"):
        machine.shorten_socket_paths()
    assert tempfile.tempdir == "/" + "t" * 130


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        ("mount -t tmpfs -o ro none /dev/shm", "darkroom: /dev/shm can't be written to: Read-only file system."),
        ("mount -t tmpfs -o ro none .prefect", "/.prefect can't be written to: Read-only file system."),
        ("mount -t tmpfs -o size=20k none .prefect", "/.prefect can't be written to: No space left on device."),
    ],
)
def test_a_full_or_read_only_file_system_is_named(mount: str, message: str, tmp_path: Path):
    (tmp_path / ".prefect").mkdir()
    (tmp_path / "photos").mkdir()
    ended = as_root_elsewhere(f'{mount}; "$0" "$@" run photos dest', clean_environment(tmp_path, is_empty=True))
    assert ended.returncode == 2, ended.stderr
    *begun, failed = ended.stderr.splitlines()
    assert set(begun) <= {"darkroom: Starting a local Prefect server and the workers."}
    assert message in failed


def test_a_file_in_the_place_of_the_home_is_named(tmp_path: Path):
    (tmp_path / ".prefect").write_text("no folder")
    ended = run_in_shell("true", tmp_path)
    assert ended.returncode == 2
    _, failed = ended.stderr.splitlines()
    assert failed.startswith(f"darkroom: PREFECT_HOME: {tmp_path}/.prefect can't be written to: ")
