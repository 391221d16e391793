"""Outputs that a run wrote without journalling them."""

import os
import time as clock

import pytest

from darkroom.tasks import unjournalled
from darkroom.tasks.dataset.claim import claim_shard
from darkroom.tasks.errors import DarkroomError, SettingsError
from darkroom.tasks.plan import make_plan
from darkroom.tasks.publish import publish
from darkroom.tasks.recover import recover
from darkroom.tasks.resize import work_shard
from darkroom.tasks.settings import Recipe, Rules
from darkroom.tasks.unjournalled import remove_unjournalled
from tests.contents import files
from tests.places import disk
from tests.tasks.helpers import (
    destination_in,
    make_job,
    manifest_rows,
    open_workspace,
    prepare,
    publish_rows,
    row,
    unprivileged,
    write_journal,
    write_listing,
    write_output,
)
from tests.tasks.shards import (
    cut_small_shards,
    die_before_journalling,
    run,
    shard_of,
    write_bmp,
    write_flat,
    wrong_outputs,
)


def begin(workspace, number):
    """Mark a shard as begun; return whether it had been begun before."""
    return claim_shard(workspace, number, f"001-1-{clock.time_ns()}").resumed


@pytest.mark.parametrize("time", [10**18, 2 * 10**18])
def test_a_source_restored_after_a_kill_has_the_right_outputs(source, place, monkeypatch, time):
    names = [f"{number}.bmp" for number in range(6)]
    for name in names:
        write_flat(source / name, 10)
    run(source, place)
    for name in names:
        write_bmp(source / name, 200)
    die_before_journalling(monkeypatch, source, place, run_id="killed")
    assert len(wrong_outputs(place)) == 6
    for name in names:
        write_flat(source / name, 10)
        os.utime(source / name, ns=(0, time))
    recover(place)
    assert files(place.images) == {}
    run(source, place, run_id="next")
    assert wrong_outputs(place) == set()
    assert len(files(place.images)) == 6


def test_a_folder_renamed_back_after_a_kill_has_the_right_outputs(source, place, monkeypatch):
    for number in range(6):
        write_flat(source / f"a/{number}.bmp", 10)
    run(source, place)
    (source / "a").rename(source / "b")
    die_before_journalling(monkeypatch, source, place, run_id="killed")
    assert len(wrong_outputs(place)) == 6
    (source / "b").rename(source / "a")
    recover(place)
    assert wrong_outputs(place) == set()
    run(source, place, run_id="next")
    assert set(files(place.images)) == {f"a/{number}.bmp.jpg" for number in range(6)}


def test_outputs_of_another_format_are_removed_after_a_kill(source, place, monkeypatch):
    write_bmp(source / "a.bmp", 10)
    run(source, place)
    made = files(place.images)
    recipe = Recipe(width=8, height=6, format="png")
    options = {"recipe": recipe, "rules": Rules(rebuild=True)}
    die_before_journalling(monkeypatch, source, place, run_id="killed", **options)
    assert set(files(place.images)) == {"a.bmp.jpg", "a.bmp.png"}
    recover(place)
    assert files(place.images) == made


def four_shards(place, monkeypatch):
    """Publish one row, and plan a run of four shards; return its workspace and job."""
    cut_small_shards(monkeypatch)
    publish_rows(
        place, [row("a.jpg", output_sha256="84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882")]
    )
    job = make_job(place, run_id="killed", rules=Rules(force=True))
    workspace = open_workspace(place, job)
    entries = {f"{letter}.jpg": (1, None) for letter in "abcd"}
    plan = make_plan(workspace, job, write_listing(workspace, entries), lambda: 4)
    assert plan.shards == (1, 1, 1, 1)
    for name in "bcd":
        write_output(place, f"images/{name}.jpg", b"made")
    return workspace, job


def test_only_shards_that_were_begun_are_suspect(place, monkeypatch):
    workspace, job = four_shards(place, monkeypatch)
    remove_unjournalled(workspace, job, workspace.begun_shards())
    assert set(files(place.images)) == {"a.jpg", "b.jpg", "c.jpg", "d.jpg"}
    assert [begin(workspace, number) for number in (3, 0, 3, 1)] == [False, False, True, False]
    assert workspace.begun_shards() == [0, 1, 3]
    write_journal(workspace, [row("b.jpg")], shard=1, attempt="009-1-1")
    remove_unjournalled(workspace, job, workspace.begun_shards())
    assert set(files(place.images)) == {"a.jpg", "b.jpg", "c.jpg"}, "a.jpg is as in the manifest, b.jpg journalled"


def test_a_folder_in_the_place_of_a_suspect_stays(place, monkeypatch):
    workspace, job = four_shards(place, monkeypatch)
    (place.images / "d.jpg").unlink()
    write_output(place, "images/d.jpg/e.jpg")
    for number in range(4):
        begin(workspace, number)
    remove_unjournalled(workspace, job, workspace.begun_shards())
    assert set(files(place.images)) == {"a.jpg", "d.jpg/e.jpg"}


@pytest.mark.parametrize("harm", [lambda plan: plan.unlink(), lambda plan: plan.write_bytes(b"no plan")])
def test_without_a_plan_every_output_of_the_manifest_is_suspect(place, monkeypatch, harm):
    workspace, job = four_shards(place, monkeypatch)
    publish_rows(place, [row("b.jpg")], run_id="other")
    begin(workspace, 0)
    harm(disk(workspace, "plan"))
    remove_unjournalled(workspace, job, workspace.begun_shards())
    assert set(files(place.images)) == {"a.jpg", "c.jpg", "d.jpg"}


def test_a_damaged_job_is_reported_with_its_remedy(place, monkeypatch):
    workspace, _ = four_shards(place, monkeypatch)
    begin(workspace, 0)
    disk(workspace, "job").write_text("{half a jo")
    with pytest.raises(DarkroomError, match=r"is damaged.*'darkroom verify' finds"):
        recover(place)
    assert workspace.begun_shards() == [0]


def test_an_output_that_may_not_be_read_is_not_removed(open_path, monkeypatch):
    place = destination_in(open_path)
    workspace, job = four_shards(place, monkeypatch)
    begin(workspace, 0)
    disk(workspace, "path").chmod(0o777)
    (place.images / "a.jpg").chmod(0)
    with unprivileged(), pytest.raises(SettingsError, match=r"a\.jpg can't be read\. Grant"):
        remove_unjournalled(workspace, job, workspace.begun_shards())
    assert "a.jpg" in files(place.images)


@pytest.mark.parametrize("published", [False, True])
def test_a_run_that_has_journalled_every_image_leaves_nothing_suspect(source, place, published, monkeypatch):
    write_flat(source / "a.bmp", 10)
    workspace, job, plan = prepare(source, place)
    work_shard(shard_of(place, plan))
    with monkeypatch.context() as patch:
        if published:
            publish(workspace, job, ended=True)
            patch.setattr(unjournalled.sql, "connect", pytest.fail)  # the numbers of rows in two footers suffice
        remove_unjournalled(workspace, job, workspace.begun_shards())
    assert set(files(place.images)) == {"a.bmp.jpg"}
    recover(place)
    assert list(manifest_rows(place)) == ["a.bmp"]
