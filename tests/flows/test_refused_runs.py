"""Runs that fail or are refused lose nothing, and say what to do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from harness import Api, clean_environment, darkroom, manifest_rows, run_id_of

from data.photos import write_corpus
from tests.contents import files
from tests.places import destination_at


def test_too_many_failures_fail_the_run_and_keep_its_work(api: Api, folder: Path, tmp_path: Path):
    out = tmp_path / "out"

    ended = darkroom("run", folder, out, "--max-failure-ratio", "0.05", environment=api.environment)

    assert ended.code == 1
    assert "2 of 26 attempted images failed" in ended.err
    assert "--max-failure-ratio 0.05 allows" in ended.err
    assert "set --max-failure-ratio 0.08." in ended.err
    assert "Traceback" not in ended.err
    assert len(manifest_rows(out)) == 26
    run = api.flow_run(run_id_of(out))
    assert run["state_type"] == "FAILED"
    assert run["state"]["message"].startswith("2 of 26 attempted images failed (1 × decode.")
    assert api.latest_summary(out).startswith(
        "# Failed: 24 made, 2 failed, 0 unchanged\n\n**2 of 26 attempted images failed (1 × decode."
    )


@pytest.mark.slow
def test_an_image_that_keeps_failing_does_not_fail_every_run(api: Api, tmp_path: Path):
    source, out = tmp_path / "photos", tmp_path / "out"
    write_corpus(source, 20, (40, 30))
    (source / "link.jpg").symlink_to("nowhere.jpg")
    nights = [darkroom("run", source, out, environment=api.environment) for _ in range(2)]
    (source / "another.jpg").symlink_to("nowhere.jpg")
    nights.append(darkroom("run", source, out, environment=api.environment))

    assert [night.code for night in nights] == [0, 0, 1], [night.err for night in nights]
    assert "0 made, 1 failed, 20 unchanged" in nights[1].out
    assert "1 of 1 attempted images failed (1 × source.not_found)" in nights[2].err
    assert manifest_rows(out)["link.jpg"]["attempts"] == 3


@pytest.mark.slow
def test_prefects_retry_of_a_run_with_too_many_failures_fails_too(api: Api, folder: Path, tmp_path: Path):
    retries = {"PREFECT_FLOWS_DEFAULT_RETRIES": "1"}

    ended = darkroom("run", folder, tmp_path / "out", "--max-failure-ratio", "0", environment=api.environment | retries)

    assert ended.code == 1
    assert "2 of 26 attempted images failed" in ended.err
    run = api.flow_run(run_id_of(tmp_path / "out"))
    assert (run["run_count"], run["state_type"]) == (2, "FAILED")


@pytest.mark.slow
def test_a_run_in_which_everything_fails_stops_early(api: Api, tmp_path: Path):
    source = tmp_path / "pages"
    source.mkdir()
    for number in range(3000):
        (source / f"{number}.jpg").write_text(f"<html>{number}</html>" * 2000)

    ended = darkroom("run", source, tmp_path / "out", environment=api.environment)

    assert ended.code == 1
    assert "Stopped early" in ended.err
    assert "unless --max-failure-ratio 1 is set" in ended.err
    assert "Traceback" not in ended.err
    assert len(manifest_rows(tmp_path / "out")) < 3000
    assert "\n\n**Stopped early: the first " in api.latest_summary(tmp_path / "out")

    allowed = darkroom("run", source, tmp_path / "out", "--max-failure-ratio", "1", environment=api.environment)
    assert allowed.code == 0
    assert len(manifest_rows(tmp_path / "out")) == 3000


def test_a_run_that_stops_early_destroys_nothing(api: Api, tmp_path: Path):
    source, out = tmp_path / "photos", tmp_path / "out"
    photos = write_corpus(source, 230, (40, 30))
    assert darkroom("run", source, out, environment=api.environment).code == 0
    images, rows = files(out / "images"), manifest_rows(out)
    for number, path in enumerate(photos):
        path.unlink() if number < 10 else path.write_text(f"<html>{number}</html>")

    ended = darkroom("run", source, out, environment=api.environment)

    assert ended.code == 1
    assert "Stopped early" in ended.err
    assert "Nothing was deleted" in ended.err
    assert files(out / "images") == images
    assert manifest_rows(out) == rows
    assert "gone from the source, not deleted | 10" in api.latest_summary(out)
    place = destination_at(out)
    place.manifest.unlink()
    assert darkroom("rebuild-manifest", out, environment=api.environment).code == 0
    assert manifest_rows(out) == rows


def test_an_empty_source_destroys_nothing(api: Api, folder: Path, tmp_path: Path):
    out = tmp_path / "out"
    darkroom("run", folder, out, "--max-failure-ratio", "1", environment=api.environment)
    before = files(out)
    shutil.rmtree(folder)
    folder.mkdir()

    ended = darkroom("run", folder, out, environment=api.environment)

    assert ended.code == 1
    assert "holds no images, while the manifest has 26" in ended.err
    assert f"Is {folder} mounted" in ended.err
    assert files(out) == before
    summary = api.latest_summary(out)
    assert summary.startswith(
        "# Failed\n\n**The source holds no images, while the manifest has 26.** Nothing was deleted."
    )
    assert "| **in the manifest** | 26 |" in summary
    assert "## Last runs" in summary


def test_too_many_deletions_destroy_nothing_until_allowed(api: Api, folder: Path, tmp_path: Path):
    out = tmp_path / "out"
    darkroom("run", folder, out, "--max-failure-ratio", "1", environment=api.environment)
    before = files(out)
    shutil.rmtree(folder / "many")

    refused = darkroom("run", folder, out, environment=api.environment)
    assert refused.code == 1
    assert "20 of 26 known images are no longer listed" in refused.err
    assert "--max-delete-ratio 0.2 allows" in refused.err
    assert "run once with --max-delete-ratio 0.77." in refused.err
    assert files(out) == before
    assert api.latest_summary(out).startswith("# Failed\n\n**20 of 26 known images are no longer listed in the source")
    assert "| gone from the source, not deleted | 20 |" in api.latest_summary(out)

    allowed = darkroom("run", folder, out, "--max-delete-ratio", "0.77", environment=api.environment)
    assert allowed.code == 0
    assert sorted(manifest_rows(out)) == sorted(name for name in manifest_rows(out) if not name.startswith("many/"))
    assert not (out / "images/many").exists()
    assert "| deleted | 20 |" in api.latest_summary(out)
    last = darkroom("history", out, "--last", "1", environment=api.environment).out.splitlines()[1]
    assert last.split()[2:5] == ["0", "0", "20"]


def test_another_recipe_is_refused_and_rebuild_replaces_every_output(api: Api, folder: Path, tmp_path: Path):
    out = tmp_path / "out"
    darkroom("run", folder, out, "--max-failure-ratio", "1", environment=api.environment)
    before = files(out)

    refused = darkroom("run", folder, out, "--width", "64", environment=api.environment)
    assert refused.code == 2
    assert "--width 600 → 64" in refused.err
    assert files(out) == before

    again = ("--width", "64", "--format", "webp", "--rebuild", "--max-failure-ratio", "1")
    rebuilt = darkroom("run", folder, out, *again, environment=api.environment)
    assert rebuilt.code == 0, rebuilt.err
    made = [row for row in manifest_rows(out).values() if row["status"] == "ok"]
    assert {(row["width"], row["format"]) for row in made} == {(64, "webp")}
    assert sorted(files(out / "images")) == sorted(row["file_name"].removeprefix("images/") for row in made)


def test_a_server_that_does_not_answer_is_named(folder: Path, tmp_path: Path):
    environment = clean_environment(tmp_path) | {"PREFECT_API_URL": "http://127.0.0.1:9/api"}

    ended = darkroom("run", folder, tmp_path / "out", environment=environment)

    assert ended.code == 2
    assert "PREFECT_API_URL: no Prefect server answers" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.slow
def test_a_scheduler_that_does_not_answer_is_named(api: Api, folder: Path, tmp_path: Path):
    ended = darkroom("run", folder, tmp_path / "out", "--scheduler", "tcp://127.0.0.1:9", environment=api.environment)

    assert ended.code == 1
    assert "--scheduler tcp://127.0.0.1:9 can't be reached" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["{folder}/none", "{out}"], "source: {folder}/none does not exist"),
        (["{folder}", "{folder}/out"], "lies inside the source"),
        (["{folder}", "{out}", "--width", "0"], "--width 0: give a whole number from 1 to 16,383"),
        (["{folder}", "{out}", "--cluster-kwargs", "{{"], "--cluster-kwargs"),
        (["{folder}", "{out}", "--scheduler", "tcp://127.0.0.1:1", "--workers", "2"], "leave out"),
    ],
)
def test_wrong_usage_of_run_is_reported_before_anything_starts(
    arguments: list[str], text: str, folder: Path, tmp_path: Path
):
    out = tmp_path / "out"
    given = [argument.format(folder=folder, out=out) for argument in arguments]

    ended = darkroom("run", *given, environment=clean_environment(tmp_path, is_empty=True))

    assert ended.code == 2
    assert text.format(folder=folder) in ended.err
    assert "Traceback" not in ended.err
    assert not out.exists()
    assert not (tmp_path / ".prefect").exists(), "no server may have been started"
