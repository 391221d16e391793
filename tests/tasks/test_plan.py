"""Which images are planned, and why."""

import os

import pyarrow.parquet as pq
import pytest

from darkroom.tasks.errors import RETRIED_NEXT_RUN, ErrorCode
from darkroom.tasks.plan import PLAN_SCHEMA
from darkroom.tasks.settings import Recipe
from tests.places import destination_at, disk
from tests.tasks.helpers import (
    NOON,
    SAME,
    after,
    convert_to_version_1,
    failed_row,
    plan_for,
    plan_rows,
    prepare,
    publish_rows,
    row,
    write_image,
    write_output,
)


def test_in_an_empty_destination_everything_is_new(place):
    plan, rows, deleted = plan_for(place, {"b.jpg": (5, after(1)), "a.jpg": (None, None)})
    assert list(rows) == ["a.jpg", "b.jpg"]
    assert rows["b.jpg"] == {
        "source_path": "b.jpg",
        "source_size": 5,
        "source_mtime": after(1),
        "source_ctime": None,
        "source_etag": None,
        "attempts": 0,
        "known_sha256": None,
        "known_output": None,
        "former": None,
        "reason": "new",
    }
    assert rows["a.jpg"]["source_size"] is None
    assert (plan.reasons, plan.deleted, plan.unchanged, plan.known, deleted) == ({"new": 2}, 0, 0, 0, [])
    assert plan.images == 2
    assert not plan.nothing_to_do


def test_the_plan_has_its_schema(place):
    plan_for(place, {"a.jpg": SAME})
    assert pq.read_schema(disk(place.workspace("next"), "plan")).equals(PLAN_SCHEMA)


def test_when_nothing_changed_there_is_nothing_to_do(place):
    publish_rows(place, [row("a.jpg"), row("b.png")])
    plan, rows, deleted = plan_for(place, {"a.jpg": SAME, "b.png": SAME})
    assert plan.nothing_to_do
    assert (rows, deleted, plan.unchanged, plan.known, plan.shards) == ({}, [], 2, 2, ())
    assert not disk(place.workspace("next"), "plan").exists()


def test_adopted_images_that_have_not_changed_are_counted_apart_from_unchanged_ones(place):
    publish_rows(place, [row("a.jpg"), row("b.png"), row("c.png")])
    plan, *_ = plan_for(place, {"a.jpg": SAME, "b.png": SAME, "c.png": SAME}, finished=2)
    assert (plan.adopted, plan.unchanged) == (2, 1)
    assert plan.describe() == "Nothing to do: 2 images adopted, 1 unchanged"
    plan, *_ = plan_for(
        place, {"a.jpg": SAME, "b.png": (1001, NOON), "c.png": (1001, NOON)}, finished=2, run_id="again"
    )
    assert (plan.adopted, plan.unchanged) == (1, 0)
    assert plan.describe() == "2 images to process (2 changed) in 1 shard; 1 adopted, 0 unchanged, 0 to delete"


@pytest.mark.parametrize("version", [(1001, NOON), (1000, after(0.000001)), (None, None)])
def test_an_image_of_another_size_or_time_is_planned_with_its_known_hash(place, version):
    publish_rows(place, [row("a.jpg", attempts=3), row("b.jpg")])
    plan, rows, _ = plan_for(place, {"a.jpg": version, "b.jpg": SAME})
    assert plan.reasons == {"changed": 1}
    assert (rows["a.jpg"]["known_sha256"], rows["a.jpg"]["attempts"]) == ("5a" * 32, 0)
    assert plan.unchanged == 1


@pytest.mark.parametrize(
    ("known", "ctime", "reasons"),
    [
        (NOON, NOON, {}),
        (NOON, after(1), {"changed": 1}),
        (NOON, after(-1), {"changed": 1}),
        (None, NOON, {}),  # as in manifests of schema version 1
        (NOON, None, {}),
        (None, None, {}),  # as in object stores
    ],
)
def test_an_image_with_another_change_time_is_planned_with_its_known_hash(place, known, ctime, reasons):
    publish_rows(place, [row("a.jpg", source_ctime=known)])
    plan, rows, _ = plan_for(place, {"a.jpg": SAME}, ctime=ctime)
    assert plan.reasons == reasons
    assert [(each["source_ctime"], each["known_sha256"]) for each in rows.values()] == [(ctime, "5a" * 32)] * len(rows)


def test_change_times_can_be_ignored(place):
    publish_rows(place, [row("a.jpg", source_ctime=NOON), row("b.jpg")])
    entries = {"a.jpg": SAME, "b.jpg": (1000, after(1))}
    assert plan_for(place, entries, ctime=after(1), detect_changes="mtime")[0].reasons == {"changed": 1}


def test_with_detect_changes_content_every_image_is_read_again(place):
    publish_rows(place, [row("a.jpg"), row("b.jpg"), failed_row("c.jpg", "decode.corrupt"), row("d.jpg")])
    (place.images / "b.jpg").unlink()
    entries = {**dict.fromkeys(("a.jpg", "b.jpg", "c.jpg"), SAME), "d.jpg": (1, NOON), "e.jpg": SAME}
    plan, rows, _ = plan_for(place, entries, detect_changes="content")
    assert plan.reasons == {"changed": 1, "checked": 2, "missing": 1, "new": 1}
    assert {name for name, each in rows.items() if each["known_sha256"]} == {"a.jpg", "c.jpg", "d.jpg"}
    assert {name for name, each in rows.items() if each["known_output"]} == {"a.jpg", "d.jpg"}


def test_the_plan_can_be_made_from_a_manifest_of_schema_version_1(place):
    publish_rows(place, [row("a.jpg"), row("b.jpg")])
    convert_to_version_1(place.manifest)
    plan, _, _ = plan_for(place, {"a.jpg": SAME, "b.jpg": (1, NOON)}, ctime=NOON)
    assert plan.reasons == {"changed": 1}


def test_a_missing_output_is_made_again_even_if_the_source_changed(place):
    publish_rows(place, [row("a.jpg"), row("b.jpg")])
    (place.images / "a.jpg").unlink()
    (place.images / "b.jpg").unlink()
    plan, rows, _ = plan_for(place, {"a.jpg": SAME, "b.jpg": (5, NOON)})
    assert plan.reasons == {"missing": 2}
    assert {each["known_sha256"] for each in rows.values()} == {None}


def test_an_output_of_another_size_is_made_again(place):
    publish_rows(place, [row("a.jpg"), row("b.jpg")])
    write_output(place, "images/a.jpg", b"short")
    plan, rows, _ = plan_for(place, {"a.jpg": SAME, "b.jpg": SAME})
    assert (plan.reasons, list(rows), rows["a.jpg"]["known_sha256"]) == ({"damaged": 1}, ["a.jpg"], None)


def test_outputs_with_odd_names_are_recognised(place):
    names = ["a\nb.jpg", "\uefff.png", "é'\".jpg", "100%[a]*?.gif", "b.png.jpg/c.png", "x" * 251 + ".png"]
    publish_rows(place, [row(name) for name in names])
    plan, _, _ = plan_for(place, dict.fromkeys(names, SAME))
    assert plan.nothing_to_do


@pytest.mark.parametrize("force", [False, True])
def test_only_images_with_an_output_have_a_known_hash(place, force):
    names = ("changed", "failed", "missing", "damaged")
    publish_rows(
        place, [failed_row("failed.jpg", "decode.corrupt"), *(row(f"{name}.jpg") for name in names if name != "failed")]
    )
    (place.images / "missing.jpg").unlink()
    write_output(place, "images/damaged.jpg", b"short")
    _, rows, _ = plan_for(place, {f"{name}.jpg": (5, NOON) for name in (*names, "new")}, force=force)
    assert {name for name, each in rows.items() if each["known_output"]} == {"changed.jpg"}
    assert rows["changed.jpg"]["known_output"] == "0f" * 32


def test_every_failure_is_tried_again_with_retry_failed(place):
    publish_rows(place, [failed_row("a.jpg", "decode.corrupt"), row("b.jpg")])
    plan, rows, _ = plan_for(place, {"a.jpg": SAME, "b.jpg": SAME}, retry_failed=True)
    assert (plan.reasons, list(rows)) == ({"retry": 1}, ["a.jpg"])


@pytest.mark.parametrize("code", list(ErrorCode))
def test_only_failures_with_codes_in_retried_next_run_are_tried_again(place, code):
    publish_rows(place, [failed_row("a.jpg", code.value, attempts=4)])
    plan, rows, _ = plan_for(place, {"a.jpg": SAME}, max_pixels=1)
    if code in RETRIED_NEXT_RUN:
        assert plan.reasons == {"retry": 1}
        assert (rows["a.jpg"]["attempts"], rows["a.jpg"]["known_sha256"]) == (4, None)
    else:
        assert plan.nothing_to_do


def test_a_failure_in_retried_next_run_is_tried_again_even_if_the_file_was_only_touched(place):
    publish_rows(place, [failed_row("a.jpg", "write.no_space"), failed_row("b.jpg", "decode.corrupt")])
    _, rows, _ = plan_for(place, {"a.jpg": (1000, after(9)), "b.jpg": (1000, after(9))})
    assert rows["a.jpg"]["known_sha256"] is None
    assert rows["b.jpg"]["known_sha256"] == "5a" * 32


@pytest.mark.parametrize(("limit", "reasons"), [(1199, {}), (1200, {"retry": 1})])
def test_an_image_of_too_many_pixels_is_tried_again_once_the_limit_allows_it(place, limit, reasons):
    publish_rows(place, [failed_row("a.jpg", "decode.too_many_pixels")])
    assert plan_for(place, {"a.jpg": SAME}, max_pixels=limit)[0].reasons == reasons


def test_the_pixel_count_of_the_largest_images_does_not_overflow(place):
    huge = {"source_width": 2**31 - 1, "source_height": 2**31 - 1}
    publish_rows(place, [failed_row("a.jpg", "decode.too_many_pixels", **huge)])
    assert plan_for(place, {"a.jpg": SAME})[0].nothing_to_do


def test_force_processes_everything_again(place):
    publish_rows(place, [row("a.jpg"), failed_row("b.jpg", "decode.corrupt")])
    plan, rows, _ = plan_for(place, {"a.jpg": SAME, "b.jpg": (5, NOON), "c.jpg": SAME}, force=True)
    assert plan.reasons == {"forced": 2, "new": 1}
    assert {each["known_sha256"] for each in rows.values()} == {None}


def test_another_recipe_processes_everything_again(place):
    publish_rows(place, [row("a.jpg"), failed_row("b.jpg", "decode.corrupt")])
    plan, _, _ = plan_for(place, {"a.jpg": SAME, "b.jpg": SAME}, recipe=Recipe(width=5), rebuild=True)
    assert plan.reasons == {"rebuild": 2}


@pytest.mark.parametrize("name", ["[a]*?'", "a*", "recipe_id=x", "status=ok", 'quote"', "é\n"])
def test_special_characters_in_the_name_of_a_destination_have_no_effect(tmp_path, name):
    decoy, place = destination_at(tmp_path / "ab"), destination_at(tmp_path / name)
    publish_rows(decoy, [row("decoy.jpg"), row("a.jpg", source_size=1)])
    publish_rows(place, [row("a.jpg"), row("b.jpg"), row("gone.jpg")])
    plan, rows, deleted = plan_for(place, {"a.jpg": SAME, "b.jpg": (5, NOON)})
    assert (plan.reasons, plan.known, list(rows), deleted) == ({"changed": 1}, 3, ["b.jpg"], ["gone.jpg"])


def test_a_plan_from_a_real_folder(place, source):
    paths = {"a.jpg", "b/c.jpg", "\n'.jpg"}
    for path in paths:
        write_image(source / path)
    workspace, *_ = prepare(source, place)
    sizes = {path: each["source_size"] for path, each in plan_rows(workspace).items()}
    assert sizes == {path: os.stat(source / path).st_size for path in paths}
