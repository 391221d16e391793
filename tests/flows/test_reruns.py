"""A run where there has been one before does only what is left."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from harness import Api, darkroom, manifest_rows, run_id_of, save

from data.generate import photo
from tests.contents import files, flip_bit


def test_a_rerun_with_nothing_to_do_writes_nothing(api: Api, folder: Path, tmp_path: Path):
    out = tmp_path / "out"
    darkroom("run", folder, out, "--max-failure-ratio", "1", environment=api.environment)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if ".darkroom" not in path.parts}

    ended = darkroom("run", folder, out, environment=api.environment)

    assert ended.code == 0
    assert "Nothing to do: 26 images unchanged." in ended.out
    [run] = api.post("flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 1})
    assert [task["name"] for task in api.task_runs(run["id"])] == [
        "list photos",
        "plan 26 images",
        "report: Nothing to do: 26 images unchanged.",
    ]
    assert [artifact["key"].rpartition("-")[2] for artifact in api.artifacts(run["id"])] == ["summary"]
    assert "(26 rows, 2 failed)" in ended.out
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if ".darkroom" not in path.parts} == before


def test_a_rerun_does_only_what_is_left(api: Api, folder: Path, tmp_path: Path):
    out = tmp_path / "out"
    darkroom("run", folder, out, "--max-failure-ratio", "1", environment=api.environment)
    first = manifest_rows(out)
    save(folder / "new.png", photo(50, 40, seed=7))
    save(folder / "c.png", photo(256, 128, seed=8))
    os.utime(folder / "a.jpg")
    (folder / "many/000.jpg").unlink()
    (folder / "many/003.jpg").rename(folder / "moved.jpg")
    (out / first["many/001.jpg"]["file_name"]).unlink()
    (out / first["many/002.jpg"]["file_name"]).write_bytes(b"damaged by hand")

    ended = darkroom("run", folder, out, environment=api.environment)

    assert ended.code == 0, ended.err
    assert "5 made (1 of them moved), 0 failed, 21 unchanged, 1 deleted" in ended.out
    second = manifest_rows(out)
    assert sorted(second) == sorted({*first, "new.png", "moved.jpg"} - {"many/000.jpg", "many/003.jpg"})
    redone = {name for name in second if second[name]["run_id"] == run_id_of(out)}
    assert redone == {"new.png", "c.png", "many/001.jpg", "many/002.jpg", "moved.jpg"}
    times = {name: second["a.jpg"][name] for name in ("source_mtime", "source_ctime")}
    assert second["a.jpg"] == first["a.jpg"] | times
    assert second["a.jpg"]["source_mtime"] > first["a.jpg"]["source_mtime"]
    for gone in ("many/000.jpg", "many/003.jpg"):
        assert not (out / first[gone]["file_name"]).exists()
    assert second["moved.jpg"]["output_sha256"] == first["many/003.jpg"]["output_sha256"]
    assert second["moved.jpg"]["decode_ms"] == 0
    summary = next(each["data"] for each in api.artifacts(run_id_of(out)) if each["key"].endswith("summary"))
    for count in ("new | 1", "changed | 2", "missing | 1", "damaged | 1", "moved | 1", "deleted | 1", "unchanged | 21"):
        assert f"{count} |" in summary
    for name, row in second.items():
        if row["status"] == "ok":
            assert hashlib.sha256((out / row["file_name"]).read_bytes()).hexdigest() == row["output_sha256"], name
    attempted = pq.read_table(out / "runs" / f"{run_id_of(out)}.parquet").to_pylist()
    assert {row["source_path"]: row["status"] for row in attempted} == dict.fromkeys(redone, "ok") | {
        "a.jpg": "unchanged"
    }


@pytest.mark.slow
def test_a_damaged_manifest_is_never_taken_for_an_empty_one(api: Api, folder: Path, tmp_path: Path):
    out = tmp_path / "out"
    assert darkroom("run", folder, out, "--max-failure-ratio", "1", environment=api.environment).code == 0
    rows, before = manifest_rows(out), files(out)
    flip_bit(out / "manifest.parquet", at=200)  # in the middle of a page
    damaged = (out / "manifest.parquet").read_bytes()

    refused = darkroom("run", folder, out, environment=api.environment)

    assert refused.code == 1
    assert "manifest.parquet is damaged (it is not what was written" in refused.err
    assert f"'darkroom rebuild-manifest {out}'" in refused.err
    assert files(out) == before | {"manifest.parquet": damaged}
    for command in ("status", "history", "verify"):
        ended = darkroom(command, out, environment=api.environment)
        assert (ended.code, "Traceback" in ended.err) == (1, False)
        assert "manifest.parquet is damaged (" in ended.err
        assert f"'darkroom rebuild-manifest {out}'" in ended.err
        assert bool(ended.out) == (command == "history"), "no figures of a damaged manifest"

    rebuilt = darkroom("rebuild-manifest", out, environment=api.environment)

    assert rebuilt.code == 0, rebuilt.err
    assert "(26 rows)" in rebuilt.out
    assert manifest_rows(out) == rows
    assert "Nothing to do: 26 images unchanged." in darkroom("run", folder, out, environment=api.environment).out
    assert "is whole" in darkroom("rebuild-manifest", out, environment=api.environment).out
    assert darkroom("rebuild-manifest", folder, environment=api.environment).code == 2
