"""The installed package: a wheel of this checkout in an environment of its own, run outside the checkout."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from harness import CHECKOUT, manifest_rows
from installation import Installation, copied_into_image, write_users_folder

SCRIPT = """
from darkroom import Compute, Recipe, preprocess
import tasks

if __name__ == "__main__":
    report = preprocess("photos", "out", recipe=Recipe(width=tasks.WIDTH), compute=Compute(workers=2))
    print(report.ok)
"""


@pytest.fixture(scope="module")
def wheel(installation: Installation, few: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """Install a wheel of what the Dockerfile copies in a new environment that has this one's dependencies."""
    source, fresh, folder = (tmp_path_factory.mktemp(name) for name in ("source", "fresh", "folder"))
    unsent = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__")
    for path in copied_into_image():
        if (CHECKOUT / path).is_dir():
            shutil.copytree(CHECKOUT / path, source / path, symlinks=True, ignore=unsent)
        else:
            shutil.copy(CHECKOUT / path, source)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", fresh], check=True)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-cache-dir"]
    offline = ["--no-deps", "--no-index"]
    subprocess.run([*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", source, source], check=True)
    [built] = source.glob("*.whl")
    subprocess.run([*pip, "--python", fresh / "bin/python", "install", *offline, built], check=True)
    [packages] = fresh.glob("lib/python*/site-packages")
    dependencies = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "dependencies.pth").write_text("\n".join(dependencies))
    write_users_folder(folder)
    (folder / "photos").symlink_to(few)
    environment = {name: value for name, value in installation.environment.items() if name != "PYTHONPATH"}
    return replace(installation, environment=environment, python=str(fresh / "bin/python"), cwd=folder)


@pytest.fixture
def folder(wheel: Installation) -> Path:
    shutil.rmtree(wheel.cwd / "out", ignore_errors=True)
    return wheel.cwd


def run(command: list[str | Path], wheel: Installation) -> str:
    local = {name: value for name, value in wheel.environment.items() if name != "PREFECT_API_URL"}
    done = subprocess.run(command, cwd=wheel.cwd, env=local, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_has_one_name(wheel: Installation):
    code = "import importlib.util as util; print([util.find_spec(name) for name in ('flows', 'tasks', 'deployments')])"

    assert run([wheel.python, "-P", "-c", code], wheel) == "[None, None, None]\n"


@pytest.mark.slow
def test_the_command_imports_no_files_of_the_user(wheel: Installation, folder: Path):
    for name in ("darkroom.py", "random.py"):
        (folder / name).write_text("raise SystemExit('not yours')")

    printed = run([Path(wheel.python).with_name("darkroom"), "run", "photos", "out", "--workers", "2"], wheel)

    assert "10 made, 0 failed" in printed
    for name in ("darkroom.py", "random.py"):
        (folder / name).unlink()


def test_a_script_beside_files_that_have_the_same_names_as_darkrooms(wheel: Installation, folder: Path):
    (folder / "script.py").write_text(SCRIPT)

    assert run([wheel.python, "script.py"], wheel) == "10\n"

    assert {row["width"] for row in manifest_rows(folder / "out").values()} == {32}


@pytest.mark.slow
def test_the_stack_runs_outside_a_checkout(wheel: Installation, folder: Path):
    stack = replace(wheel, environment=wheel.environment | {"DARKROOM_SOURCE": "photos", "DARKROOM_DESTINATION": "out"})
    refused = stack.module("darkroom.deployments.stack", DARKROOM_SOURCE="", DARKROOM_DESTINATION="")
    assert refused.code == 2
    assert "DARKROOM_SOURCE and DARKROOM_DESTINATION not set. Set both" in refused.err

    with stack.started("darkroom.deployments.stack", until="started!") as process:
        stack.ended(stack.run("preprocess/nightly"), "COMPLETED")
        [deployment] = stack.api.post("deployments/filter", {"deployments": {"name": {"any_": ["nightly"]}}})
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 0

    [step] = deployment["pull_steps"]
    [package] = Path(stack.python).parents[1].glob("lib/python*/site-packages/darkroom")
    assert step == {"prefect.deployments.steps.set_working_directory": {"directory": str(package)}}
    assert len(manifest_rows(folder / "out")) == 10
