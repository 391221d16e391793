"""Disks that fill up, turn read-only, fail and hang: transient faults are retried, and nothing is lost."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import CHECKOUT, Api, Started, check_images, darkroom, eventually, journalled, manifest_rows, save

from data.generate import photo
from data.photos import write_corpus
from tests.needs import skip_or_fail

IMAGES = 120


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 4 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        skip_or_fail("only root may mount a small disk")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def remount(disk: Path, option: str) -> bool:
    return subprocess.run(["mount", "-o", f"remount,{option}", disk], capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["renamed", "without its working state"])
def test_a_destination_that_is_taken_away_during_a_run_is_not_made_again(
    harm: str, start: Callable[..., Started], api: Api, large_folder: Path, tmp_path: Path
):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    started = start("run", large_folder, out, environment=api.environment)
    eventually(lambda: journalled(out))
    taken = out if harm == "renamed" else out / ".darkroom"
    taken.rename(elsewhere)
    _, errors = started.process.communicate(timeout=120)
    assert started.process.returncode == 1
    missing = r"(No such file or directory|\.darkroom/lease\.json is missing)"  # as a worker or the heartbeat finds
    assert re.search(rf"{out} can't be written to: {missing}\. It was moved or removed", errors)
    assert "Traceback" not in errors
    assert not taken.exists()
    elsewhere.rename(taken)
    ended = darkroom("run", large_folder, out, environment=api.environment)
    assert ended.code == 0, ended.err
    assert len(manifest_rows(out)) == len(list(large_folder.iterdir()))


def test_a_full_disk_ends_the_run_and_the_next_one_completes_it(api: Api, small_disk: Path, tmp_path: Path):
    source, out = tmp_path / "photos", small_disk / "out"
    write_corpus(source, IMAGES, (500, 375))

    full = darkroom("run", source, out, environment=api.environment)

    assert full.code == 1
    assert f"{out} can't be written to: " in full.err.splitlines()[-1]
    assert "space" in full.err.splitlines()[-1]
    assert "the same command goes on from there" in full.err
    assert "Traceback" not in full.err
    check_images(out)
    assert not (out / "manifest.parquet").exists()

    assert remount(small_disk, "size=64m")
    ended = darkroom("run", source, out, environment=api.environment)

    assert ended.code == 0, ended.err
    rows = manifest_rows(out)
    assert len(rows) == IMAGES
    assert {row["status"] for row in rows.values()} == {"ok"}
    check_images(out)
    assert not list(out.rglob(".darkroom-*"))


@pytest.mark.slow
def test_a_disk_that_turns_read_only_ends_the_run(
    api: Api, small_disk: Path, large_folder: Path, start: Callable[..., Started]
):
    assert remount(small_disk, "size=64m")
    out = small_disk / "out"
    started = start("run", large_folder, out, environment=api.environment)
    eventually(lambda: list(out.glob(".darkroom/runs/*/journal/*.parquet")))

    eventually(lambda: remount(small_disk, "ro"))

    _, errors = started.process.communicate(timeout=120)
    assert started.process.returncode == 1
    assert f"{out} can't be written to: Read-only file system" in errors
    assert remount(small_disk, "rw")
    check_images(out)
    ended = darkroom("run", large_folder, out, environment=api.environment)
    assert ended.code == 0, ended.err
    assert "adopted" in ended.out
    assert len(manifest_rows(out)) == 200


def test_reads_that_fail_are_retried_and_those_that_hang_are_given_up(api: Api, tmp_path: Path):
    source, out = tmp_path / "photos", tmp_path / "out"
    names = ["a.jpg", "eio-2.jpg", "eio-99.jpg", "slow.jpg", "hang.jpg", *(f"z{number}.jpg" for number in range(20))]
    for seed, name in enumerate(names):
        save(source / name, photo(160, 120, seed=seed), quality=90)
    paths = [CHECKOUT / "tests/faults", api.environment["PYTHONPATH"]]
    faulty = api.environment | {"PYTHONPATH": os.pathsep.join(map(str, paths))}

    ended = darkroom("run", source, out, "--max-read-seconds", "3", environment=faulty)

    assert ended.code == 0, ended.err
    rows = manifest_rows(out)
    assert {name: row["error_code"] for name, row in rows.items() if row["status"] != "ok"} == {
        "eio-99.jpg": "source.failed",
        "hang.jpg": "source.timeout",
    }
    assert rows["slow.jpg"]["read_ms"] >= 1000
    assert rows["hang.jpg"]["error_message"] == "reading did not end within 3 s (`max_read_seconds`)"
    assert len(rows) == len(names)

    ended = darkroom("run", source, out, environment=api.environment)

    assert "2 made, 0 failed, 23 unchanged" in ended.out
