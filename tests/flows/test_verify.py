"""Verifying as users do it: the real command, a real Prefect server, real Dask processes, real damage."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from harness import (
    Api,
    Ended,
    Started,
    check_done_again,
    clean_environment,
    darkroom,
    eventually,
    family,
    gone,
    has_begun,
    manifest_rows,
    run_id_of,
    save,
    stopped_within_a_shard,
    workers,
)

from darkroom.tasks.dataset.lease import hold_lease, read_lease
from data.generate import photo
from tests.contents import files, flip_bit
from tests.places import OnDisk, destination_at
from tests.tasks.helpers import publish_rows, row


def run_of(ended: Ended) -> str:
    """Return the id of the flow run that a command names at its end."""
    return ended.out.rstrip().rpartition("/")[2]


def published(api: Api, run_id: str) -> dict[str, str]:
    """Return a flow run's artifacts, by the end of their keys."""
    return {artifact["key"][artifact["key"].rindex("verify") :]: artifact["data"] for artifact in api.artifacts(run_id)}


FOUND = {
    "many/000.jpg": "damaged",
    "many/001.jpg": "damaged",
    "a.jpg": "damaged",
    "turned/b.jpg": "missing",
    "many/holiday.jpg": "foreign",
    ".darkroom-1-1": "foreign",
}
HEADLINE = "3 damaged, 1 missing, 2 foreign; 24 outputs, 21 of them read again."


def spoil(images: Path) -> None:
    """Damage outputs as in `FOUND`."""
    flip_bit(images / "many/000.jpg")
    os.truncate(images / "many/001.jpg", 1000)
    save(images / "a.jpg", photo(600, 600, seed=9), quality=90)
    (images / "turned/b.jpg").unlink()
    (images / "many/holiday.jpg").write_bytes(b"a user's own")
    (images / ".darkroom-1-1").write_bytes(b"half an ima")


def outputs(found: dict[str, bytes]) -> dict[str, bytes]:
    return {name[7:]: data for name, data in found.items() if name.startswith("images/")}


def check_reported(api: Api, ended: Ended) -> None:
    """Check that the terminal and the UI list the findings in `FOUND`."""
    assert ended.code == 1
    for name, kind in FOUND.items():
        assert f"{kind:<12}images/{name}: " in ended.out
    assert f"darkroom: {HEADLINE}\nVerify with --repair" in ended.err
    assert "Traceback" not in ended.err
    run = api.flow_run(run_of(ended))
    assert run["state_type"] == "FAILED"
    assert run["state"]["message"].splitlines()[0] == HEADLINE
    shown = published(api, run["id"])
    assert shown["verify"].startswith(f"# {HEADLINE}\n")
    assert "| damaged | 3 |" in shown["verify"]
    listed = re.split(r"^## (.+)$", shown["verify-findings"], flags=re.MULTILINE)[1:]
    kinds = {
        name: kind.replace(" ", "_")
        for kind, lines in zip(listed[::2], listed[1::2], strict=True)
        for name in re.findall("^- `images/(.+?)`: .+", lines, re.MULTILINE)
    }
    assert kinds == FOUND


def check_clean(api: Api, ended: Ended) -> None:
    assert ended.code == 0, ended.err
    assert "As the manifest says: 24 outputs, 24 of them read again" in ended.out
    run = api.flow_run(run_of(ended))
    assert run["state_type"] == "COMPLETED"
    assert run["name"].startswith("verify out 20")
    assert [task["name"] for task in api.task_runs(run["id"])] == [
        "survey 26 rows of the manifest",
        "verify shard 1 of 1 (24 images)",
        "report: As the manifest says: 24 outputs, 24 of them read again.",
    ]
    assert set(published(api, run["id"])) == {"verify", "verify-progress"}


def names_and_kinds(findings: list[dict[str, str]]) -> dict[str, str]:
    return {each["file_name"].removeprefix("images/"): each["kind"] for each in findings}


def test_damage_is_found_reported_repaired_and_only_that_is_made_again(api: Api, folder: Path, tmp_path: Path):
    out = tmp_path / "out"
    darkroom("run", folder, out, "--max-failure-ratio", "1", environment=api.environment)
    whole, rows = files(out), manifest_rows(out)
    spoil(out / "images")
    damaged = files(out)

    check_reported(api, darkroom("verify", out, environment=api.environment))

    [kept] = (out / "findings").iterdir()
    assert names_and_kinds(pq.read_table(kept).to_pylist()) == FOUND
    kept.unlink()
    assert files(out) == damaged, "without --repair nothing is changed"

    repaired = darkroom("verify", out, "--repair", environment=api.environment)

    assert repaired.code == 1
    assert "Repaired: 4 moved to" in repaired.err
    assert "The next 'darkroom run' makes 4 again." in repaired.err
    assert files(out / ".darkroom/quarantine" / run_of(repaired) / "images") == {
        name: damaged[f"images/{name}"] for name in ("many/000.jpg", "many/001.jpg", "a.jpg", "many/holiday.jpg")
    }
    assert outputs(files(out)) == {name: data for name, data in outputs(whole).items() if name not in FOUND}
    assert (out / "manifest.parquet").read_bytes() == whole["manifest.parquet"]

    again = darkroom("run", folder, out, environment=api.environment)

    assert "4 made, 0 failed, 22 unchanged" in again.out
    remade = {path for path, each in manifest_rows(out).items() if each["run_id"] == run_id_of(out)}
    assert remade == {name for name, kind in FOUND.items() if kind != "foreign"}
    assert outputs(files(out)) == outputs(whole)
    digests = {path: each["output_sha256"] for path, each in manifest_rows(out).items()}
    assert digests == {path: each["output_sha256"] for path, each in rows.items()}
    before = files(out)

    check_clean(api, darkroom("verify", out, environment=api.environment))

    assert files(out) == before, "verifying what is right writes nothing"
    assert not list((out / ".darkroom/verify").iterdir())


def test_a_destination_that_is_in_use_is_left_alone(api: Api, tmp_path: Path):
    place = destination_at(tmp_path / "out")
    publish_rows(place, [row("a.jpg")])
    place.images.joinpath("foreign").write_bytes(b"x")
    before = files(place.images)
    with hold_lease(place, "the-run") as lease:
        ended = darkroom("verify", place.root, "--repair", environment=api.environment)
        lease.check()
    assert files(place.images) == before
    assert ended.code == 1
    assert f"is in use by run the-run on {os.uname().nodename} (process {os.getpid()}) since 20" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.slow
def test_a_script_gets_the_error_and_its_report(api: Api, tmp_path: Path):
    place = destination_at(tmp_path / "out")
    publish_rows(place, [row("a.jpg"), row("b.jpg")])
    (place.images / "b.jpg").unlink()
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from darkroom.flows.verify import VerifyFailedError, verify\n"
        "if __name__ == '__main__':\n"
        "    try:\n"
        "        verify(sys.argv[1], sample=0.5)\n"
        "    except VerifyFailedError as failure:\n"
        "        print('REPORT', failure.report.counts, failure.report.findings[0].detail)\n"
    )

    done = subprocess.run(
        [sys.executable, script, place.root], env=api.environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "REPORT {'damaged': 1, 'missing': 1} other bytes than were written: no image" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{out}"], "{out} is not a destination of Darkroom"),
        (["{out}/place", "--sample", "0"], "--sample 0: give a number above 0 and up to 1"),
        (["{out}/place", "--workers", "0"], "--workers 0: give a whole number of 1 or more"),
    ],
)
def test_wrong_usage_is_reported_before_anything_starts(arguments: list[str], message: str, tmp_path: Path):
    (tmp_path / "place/.darkroom").mkdir(parents=True)

    ended = darkroom(
        "verify",
        *(argument.format(out=tmp_path) for argument in arguments),
        environment=clean_environment(tmp_path, is_empty=True),
    )

    assert ended.code == 2
    assert message.format(out=tmp_path) in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / ".prefect").exists(), "no server may have been started"


@pytest.fixture
def large_outputs(large_folder: Path, tmp_path: Path) -> OnDisk:
    """Write a destination that keeps a process busy for some seconds: 72 links to a few large photos."""
    place = destination_at(tmp_path / "out")
    sources = sorted(large_folder.iterdir())[::3]
    facts = {}
    for source in sources:
        inode = source.stat().st_ino
        if inode not in facts:
            data = source.read_bytes()
            facts[inode] = {"output_bytes": len(data), "output_sha256": hashlib.sha256(data).hexdigest()}
    size = {"width": 4000, "height": 3000}
    publish_rows(place, [row(source.name, **size, **facts[source.stat().st_ino]) for source in sources])
    for source in sources:
        (place.images / source.name).unlink()
        os.link(source, place.images / source.name)
    return place


def test_a_lost_worker_is_no_damage(api: Api, start: Callable[..., Started], large_outputs: OnDisk):
    damaged = sorted(path.name for path in large_outputs.images.iterdir())[::4]
    for name in damaged:
        flip_bit(large_outputs.images / name)
    started = start("verify", large_outputs.root, "--workers", "1", environment=api.environment)
    eventually(lambda: has_begun(started))
    [worker] = workers(started.process)
    eventually(lambda: stopped_within_a_shard(worker, large_outputs.root, api))

    worker.kill()

    printed, errors = started.process.communicate(timeout=120)
    assert started.process.returncode == 1
    total = len(list(large_outputs.images.iterdir()))
    assert f"darkroom: {len(damaged)} damaged; {total} outputs, {total} of them read again.\n" in errors
    [kept] = large_outputs.findings.iterdir()
    assert pq.read_table(kept)["file_name"].to_pylist() == [f"images/{name}" for name in damaged]
    check_done_again(api, printed.rstrip().rpartition("/")[2])


def test_an_interrupted_verification_leaves_nothing(api: Api, start: Callable[..., Started], large_outputs: OnDisk):
    before = files(large_outputs.root)
    started = start("verify", large_outputs.root, "--repair", environment=api.environment)
    eventually(lambda: has_begun(started))
    processes = family(started.process)

    started.signal_all(signal.SIGINT)

    _, errors = started.process.communicate(timeout=30)
    assert started.process.returncode == 130
    assert "Interrupted. The same command begins again." in errors
    assert "Traceback" not in errors
    eventually(lambda: gone(processes), 10)
    assert read_lease(large_outputs) is None
    shutil.rmtree(large_outputs.work / "verify")
    assert files(large_outputs.root) == before | {".darkroom/lease.json": b"", ".darkroom/lease.lock": b""}
