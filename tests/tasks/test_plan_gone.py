"""Images that are gone from the source are deleted, or have moved."""

from darkroom.tasks.settings import Recipe
from tests.tasks.helpers import NOON, SAME, after, failed_row, plan_for, publish_rows, row


def test_images_that_the_rules_now_exclude_are_deleted_and_counted(place):
    names = ["a.jpg", "raw/b.jpg", "raw/c/d.jpg", "@eaDir/e.jpg", "f.jpg"]
    publish_rows(place, [row(name) for name in names])
    plan, _, deleted = plan_for(place, {"a.jpg": SAME}, exclude=["raw/"])
    assert sorted(deleted) == sorted(names[1:])
    assert (plan.deleted, plan.gone, plan.left_out) == (4, 4, 3)


def test_images_below_thousands_of_folders_that_could_not_be_listed_are_not_deleted(place):
    names = [f"closed-{number}/a.jpg" for number in range(3_000)]
    publish_rows(place, [row(name) for name in [*names, "closed-1.jpg", "closed/a.jpg"]])
    plan, _, deleted = plan_for(place, {}, unreadable=[name.removesuffix("/a.jpg") for name in names])
    assert sorted(deleted) == ["closed-1.jpg", "closed/a.jpg"]
    assert plan.unchanged == 0


def test_images_gone_from_the_source_are_deleted(place):
    publish_rows(place, [row("a.jpg"), failed_row("b'[.jpg", "decode.corrupt"), row("c/d.jpg")])
    plan, rows, deleted = plan_for(place, {"c/d.jpg": SAME})
    assert sorted(deleted) == ["a.jpg", "b'[.jpg"]
    assert (plan.deleted, plan.known, plan.nothing_to_do, rows) == (2, 3, False, {})


def test_an_image_with_the_size_and_time_of_a_gone_one_is_planned_as_moved(place):
    publish_rows(place, [row("a.jpg", source_size=7), row("b.jpg"), row("c.jpg", source_size=9), row("stays.jpg")])
    entries = {"to/a.jpg": (7, NOON), "twin.jpg": (7, NOON), "c.jpg": (9, after(1)), "stays.jpg": SAME}
    plan, rows, deleted = plan_for(place, entries)
    assert plan.reasons == {"changed": 1, "moved": 2}
    assert (sorted(deleted), plan.deleted, plan.gone) == (["a.jpg", "b.jpg"], 2, 1)
    assert {path: each["former"] and each["former"]["file_name"] for path, each in rows.items()} == {
        "c.jpg": None,
        "to/a.jpg": "images/a.jpg",
        "twin.jpg": "images/a.jpg",
    }


def test_an_ambiguous_match_or_one_without_output_is_planned_as_new(place):
    publish_rows(
        place,
        [
            row("twin-1.jpg", source_size=1),
            row("twin-2.jpg", source_size=1),
            failed_row("failed.jpg", "decode.corrupt", source_size=2),
            row("lost.jpg", source_size=3),
            row("unknown.jpg", source_size=None, source_mtime=None),
        ],
    )
    (place.images / "lost.jpg").unlink()
    entries = {f"new-{size}.jpg": (size, NOON if size else None) for size in (1, 2, 3, None)}
    plan, _, _ = plan_for(place, entries)
    assert (plan.reasons, plan.deleted, plan.gone) == ({"new": 4}, 5, 5)


def test_with_force_or_another_recipe_a_moved_image_is_planned_as_new(place):
    publish_rows(place, [row("a.jpg")])
    assert plan_for(place, {"b.jpg": SAME}, force=True)[0].reasons == {"new": 1}
    assert plan_for(place, {"b.jpg": SAME}, recipe=Recipe(width=5), rebuild=True, run_id="other")[0].reasons == {
        "new": 1
    }


def test_images_below_folders_that_could_not_be_listed_are_not_deleted(place):
    publish_rows(place, [row(path) for path in ("it's/a.jpg", "it's/b/c.jpg", "it's.jpg", "it'so/d.jpg", "e.jpg")])
    _, rows, deleted = plan_for(place, {"e.jpg": SAME}, unreadable=["it's"])
    assert sorted(deleted) == ["it's.jpg", "it'so/d.jpg"]
    assert rows == {}


def test_nothing_is_deleted_if_the_source_could_not_be_listed(place):
    publish_rows(place, [row("a.jpg"), row("b/c.jpg")])
    assert plan_for(place, {}, unreadable=["b", ""])[2] == []
