"""The flow as users run it: real images, a real Prefect server, real Dask processes."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from harness import Api, clean_environment, darkroom, manifest_rows, run_id_of
from PIL import Image, ImageOps

from darkroom.tasks.imaging.transform import transform
from darkroom.tasks.settings import Recipe
from tests.contents import files, flip_bit


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_a_run_makes_every_output_and_a_true_manifest(api: Api, folder: Path, tmp_path: Path):
    out = tmp_path / "out"
    before = files(folder)
    started = datetime.now(UTC)

    ended = darkroom("run", folder, out, "--max-failure-ratio", "0.2", environment=api.environment)

    assert ended.code == 0, ended.err
    assert "24 made, 2 failed, 0 unchanged" in ended.out
    assert f"{out}/manifest.parquet (26 rows, 2 failed)" in ended.out
    assert files(folder) == before, "nothing of the source may be touched"
    rows = manifest_rows(out)
    assert sorted(rows) == sorted(
        name for name in before if name.rpartition(".")[2] in {"jpg", "png", "webp"} and name != ".hidden.jpg"
    )
    assert list(rows) == sorted(rows, key=str.encode)
    assert rows["broken.jpg"]["error_code"] == "decode.truncated"
    assert rows["page.jpg"]["error_code"] == "decode.unknown_format"
    made = [row for row in rows.values() if row["status"] == "ok"]
    assert len(made) == 24
    for row in made:
        output = (out / row["file_name"]).read_bytes()
        source = before[row["source_path"]]
        assert len(output) == row["output_bytes"]
        assert hashlib.sha256(output).hexdigest() == row["output_sha256"]
        assert hashlib.sha256(source).hexdigest() == row["source_sha256"]
        assert len(source) == row["source_size"]
        image = Image.open(io.BytesIO(output))
        assert (image.width, image.height, image.format) == (row["width"], row["height"], "JPEG") == (600, 600, "JPEG")
        assert row["channels"] == 3
        assert started <= row["processed_at"] <= datetime.now(UTC)
        assert all(row[f"{stage}_ms"] > 0 for stage in ("read", "decode", "resize", "encode", "write"))
        modified = datetime.fromtimestamp((folder / row["source_path"]).stat().st_mtime_ns / 1e9, UTC)
        assert abs((row["source_mtime"] - modified).total_seconds()) < 1e-5
        assert row["recipe_id"] == Recipe().recipe_id
        assert row["run_id"] == run_id_of(out)
    assert (rows["turned/b.jpg"]["source_width"], rows["turned/b.jpg"]["source_height"]) == (300, 200)
    assert rows["turned/b.jpg"]["orientation"] == 6
    assert rows["turned/b.jpg"]["scale_x"] == 3.0  # the turned image is 200 wide
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()) == sorted(
        [
            ".darkroom/lease.json",
            ".darkroom/lease.lock",
            "manifest.parquet",
            f"runs/{run_id_of(out)}.parquet",
            *(row["file_name"] for row in made),
        ]
    )


@pytest.mark.slow
def test_outputs_are_the_pixels_that_a_reference_gives(api: Api, folder: Path, tmp_path: Path):
    out = tmp_path / "out"
    size = ("--width", "64", "--height", "48", "--format", "png", "--max-failure-ratio", "1")

    assert darkroom("run", folder, out, *size, environment=api.environment).code == 0

    rows = manifest_rows(out)
    lossless = np.asarray(Image.open(folder / "c.png"))
    expected = cv2.resize(lossless, (64, 48), interpolation=cv2.INTER_AREA)
    assert np.array_equal(pixels(out / rows["c.png"]["file_name"]), expected)
    for name in ("a.jpg", "turned/b.jpg", "sub folder/ünï 'q\" %20\n🐈.webp"):
        upright = np.asarray(ImageOps.exif_transpose(Image.open(folder / name)).convert("RGB"))
        expected = cv2.resize(upright, (64, 48), interpolation=cv2.INTER_AREA).astype(int)
        # Scaled decoding of JPEG and full decoding differ in rounding, not in what is seen.
        assert np.abs(pixels(out / rows[name]["file_name"]) - expected).mean() < 3.0


@pytest.mark.slow
def test_outputs_depend_on_nothing_but_bytes_and_recipe(api: Api, folder: Path, tmp_path: Path):
    one, two = tmp_path / "one", tmp_path / "two"

    for out, workers in ((one, "1"), (two, "3")):
        ended = darkroom(
            "run", folder, out, "--workers", workers, "--max-failure-ratio", "1", environment=api.environment
        )
        assert ended.code == 0

    assert files(one / "images") == files(two / "images")
    direct = transform((folder / "a.jpg").read_bytes(), Recipe(), 10**9).data
    assert (one / "images/a.jpg").read_bytes() == direct


def test_a_preview_shows_outputs_and_publishes_nothing(api: Api, folder: Path, tmp_path: Path):
    out = tmp_path / "out"
    darkroom("run", folder, out, "--max-failure-ratio", "1", environment=api.environment)
    before = files(out)
    shutil.rmtree(folder / "many")  # more than max_delete_ratio allows

    # A preview works with another recipe, and from a source that has lost most images.
    preview = darkroom("run", folder, out, "--limit", "5", "--width", "64", environment=api.environment)

    assert preview.code == 0, preview.err
    assert "A run without --limit would be refused. destination:" in preview.err
    assert "belongs to another recipe (--width 600 → 64)" in preview.err
    assert "Preview: 3 made, 2 failed" in preview.out
    assert re.search("^broken.jpg: decode.truncated: .+$", preview.out, re.MULTILINE)
    assert re.search("^page.jpg: decode.unknown_format: .+$", preview.out, re.MULTILINE)
    assert preview.out.endswith("Nothing was published; run without --limit.\n")
    assert files(out) == before
    pictures = re.findall("^picture +(.+)$", preview.out, re.MULTILINE)
    [outputs] = re.findall("^outputs +(.+)$", preview.out, re.MULTILINE)
    try:
        assert [Path(picture).name for picture in pictures] == ["contact-sheet.jpg", "failures.jpg"]
        assert all(min(size_of(Path(picture))) > 100 for picture in pictures)
        assert {size_of(path) for path in Path(outputs).rglob("*.jpg")} == {(64, 600)}
    finally:
        shutil.rmtree(Path(outputs).parent)

    flip_bit(out / "manifest.parquet")
    preview = darkroom("run", folder, out, "--limit", "1", "--max-failure-ratio", "1", environment=api.environment)
    assert preview.code == 0, preview.err
    assert f"A run without --limit would be refused. {out}/manifest.parquet is damaged" in preview.err
    shutil.rmtree(Path(re.findall("^outputs +(.+)$", preview.out, re.MULTILINE)[0]).parent)


@pytest.mark.slow
def test_a_preview_of_nothing_leaves_nothing(api: Api, tmp_path: Path):
    (tmp_path / "photos").mkdir()
    with tempfile.TemporaryDirectory() as temporary:  # a short name: sockets lie in it
        environment = api.environment | {"TMPDIR": temporary}

        preview = darkroom("run", tmp_path / "photos", tmp_path / "out", "--limit", "5", environment=environment)

        assert preview.code == 1
        assert "The source holds no images" in preview.err
        assert not list(Path(temporary).glob("darkroom-*"))
    assert not (tmp_path / "out").exists()


def test_the_ui_shows_stages_logs_and_artifacts(api: Api, folder: Path, tmp_path: Path):
    out = tmp_path / "out"
    darkroom("run", folder, out, "--max-failure-ratio", "1", environment=api.environment)
    run_id = run_id_of(out)

    run = api.flow_run(run_id)
    assert run["state_type"] == "COMPLETED"
    assert run["state"]["message"] == "24 made, 2 failed, 0 unchanged"
    assert re.fullmatch(r"out 20\d\d-\d\d-\d\d \d\d:\d\d UTC", run["name"])
    assert run["parameters"]["recipe"]["width"] == 600
    tasks = api.task_runs(run_id)
    assert [(task["name"], task["state_type"]) for task in tasks] == [
        ("list photos", "COMPLETED"),
        ("plan 26 images", "COMPLETED"),
        ("resize shard 1 of 1 (26 images)", "COMPLETED"),
        ("publish the manifest", "COMPLETED"),
        ("report: 24 made, 2 failed, 0 unchanged", "COMPLETED"),
    ]
    assert max(len(json.dumps(task["task_inputs"])) for task in tasks) < 1000
    logs = [[log["message"] for log in api.logs(run_id) if log["task_run_id"] == task["id"]] for task in tasks]
    for lines, text in zip(
        logs,
        [
            "Found 26 images, ",
            "26 images to process (26 new) in 1 shard",
            "24 made, 2 failed",
            "Published manifest.parquet: 26 rows",
            "Stored the summary: 24 made, 2 failed, 0 unchanged",
        ],
        strict=True,
    ):
        assert sum(text in line for line in lines) == 1
        assert len(lines) <= 3, "no line per image"
    artifacts = {artifact["key"].rpartition("-")[2]: artifact for artifact in api.artifacts(run_id)}
    assert artifacts["summary"]["data"].startswith("# 24 made, 2 failed, 0 unchanged")
    for text in ("decode.truncated", "| p50 | p95 | max |", "images/s", "Slowest images", "## Last runs"):
        assert text in artifacts["summary"]["data"]
    pictures = re.findall(r"\(data:image/jpeg;base64,(.*?)\)", artifacts["summary"]["data"])
    sizes = [Image.open(io.BytesIO(base64.b64decode(picture))).size for picture in pictures]
    assert len(sizes) == 2, "a sample of what was made, and what failed"
    assert sizes[0][0] > sizes[1][0] > 100
    assert re.fullmatch(
        "# 2 failed\n\n## decode.truncated\n\n- `broken.jpg`: .+\n\n## decode.unknown_format\n\n- `page.jpg`: .+\n",
        artifacts["failures"]["data"],
    )
    assert artifacts["failures"]["description"] == "2 failed: 1 × decode.truncated, 1 × decode.unknown_format"
    assert artifacts["progress"]["data"] == 100.0
    shown = darkroom("history", out, environment=api.environment)
    assert shown.code == 0, shown.err
    header, *lines = shown.out.splitlines()
    assert header.split()[2:4] == ["made", "failed"]
    assert [line.split()[2:5] + line.split()[-1:] for line in lines] == [["24", "2", "0", run_id[:8]]]


def test_a_run_beside_a_running_server_uses_it_and_names_its_page(api: Api, folder: Path, tmp_path: Path):
    environment = clean_environment(tmp_path) | {"PREFECT_SERVER_API_PORT": str(urlsplit(api.url).port)}

    ended = darkroom("run", folder, tmp_path / "out", "--max-failure-ratio", "1", environment=environment)

    assert ended.code == 0, ended.err
    assert f"darkroom: Using the Prefect server at {api.url}." in ended.err
    run_id = run_id_of(tmp_path / "out")
    assert f"page      {api.url.removesuffix('/api')}/runs/flow-run/{run_id}\n" in ended.out
    assert api.flow_run(run_id)["state_type"] == "COMPLETED"


def test_odd_files_of_the_corpus_cost_only_themselves(api: Api, shared_corpus: Path, tmp_path: Path):
    ended = darkroom(
        "run", shared_corpus / "odd", tmp_path / "out", "--max-failure-ratio", "1", environment=api.environment
    )

    assert ended.code == 0, ended.err
    rows = manifest_rows(tmp_path / "out")
    assert len(rows) == 44
    assert rows["12bit.jpg"]["error_code"] == "decode.unsupported"
    assert rows["exif-landscape-6.jpg"]["status"] == "ok"
